//! Sources and schedules: one started, one stopped, whatever its kind.

use super::{Node, after, schedules};
use crate::config::{Config, Schedule, Source};
use crate::sources::Intake;
use crate::sources::folder::{After, FolderHandle, FolderOptions, FolderSource, SourceError};
use crate::tasks::Tasks;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What brings events: a source or a schedule.
#[derive(Clone, Copy)]
pub(super) enum Bringer<'a> {
    Source(&'a Source),
    Schedule(&'a Schedule),
}

/// Every source and schedule of a configuration, under names that differ.
pub(super) fn bringers(config: &Config) -> Vec<(String, Bringer<'_>)> {
    let sources = config.sources.iter();
    let schedules = config.schedules.iter();
    sources
        .map(|(name, source)| (name.clone(), Bringer::Source(source)))
        .chain(schedules.map(|(name, s)| (format!("schedules/{name}"), Bringer::Schedule(s))))
        .collect()
}

/// A source or schedule that runs.
pub(super) struct RunningSource {
    stop: CancellationToken,
    tasks: Tasks,
    folder: Option<Arc<FolderHandle>>,
}

impl RunningSource {
    /// The folder source, if it is one.
    pub fn folder(&self) -> Option<&Arc<FolderHandle>> {
        self.folder.as_ref()
    }

    /// Stops it; when this returns, it hands nothing in any more.
    pub async fn stop(&self) {
        self.stop.cancel();
        if let Some(folder) = &self.folder {
            folder.stop().await;
        }
        self.tasks.wait().await;
    }
}

impl Node {
    /// Starts a source or schedule.
    pub(super) async fn bring(
        &self,
        name: &str,
        what: Bringer<'_>,
    ) -> Result<RunningSource, SourceError> {
        let stop = self.stop_sources.child_token();
        let mut running = RunningSource {
            stop: stop.clone(),
            tasks: self.tasks.part(),
            folder: None,
        };
        let intake: Arc<dyn Intake> = Arc::new(self.router.clone());
        match what {
            Bringer::Source(Source::Folder(options)) => {
                running.folder = Some(self.folder(name, options, intake, &running).await?);
            }
            Bringer::Schedule(schedule) => running.tasks.spawn(schedules::run(
                name.trim_start_matches("schedules/").to_owned(),
                schedule.clone(),
                intake,
                self.config().node.event_defaults(),
                self.clock.clone(),
                stop,
            )),
        }
        Ok(running)
    }

    async fn folder(
        &self,
        name: &str,
        options: &FolderOptions,
        intake: Arc<dyn Intake>,
        running: &RunningSource,
    ) -> Result<Arc<FolderHandle>, SourceError> {
        let started = FolderSource::start(
            options.clone(),
            intake,
            self.state.clone(),
            self.clock.clone(),
            running.stop.clone(),
        );
        let handle = Arc::new(started.await?);
        if options.after != After::Keep {
            running.tasks.spawn(after::run(
                name.to_owned(),
                Arc::clone(&handle),
                self.bus.clone(),
                running.stop.clone(),
            ));
        }
        Ok(handle)
    }
}
