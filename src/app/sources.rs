//! Sources and schedules: one started, one stopped, whatever its kind.

use super::{Node, after, buckets, schedules};
use crate::config::{Config, S3Source, Schedule, Source};
use crate::sources::Intake;
use crate::sources::folder::{After, FolderHandle, FolderOptions, FolderSource};
use crate::sources::queue::QueueSource;
use crate::sources::s3::{self, S3Handle};
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
    bucket: Option<Arc<S3Handle>>,
}

/// Why a source does not start.
pub type BringError = Box<dyn std::error::Error + Send + Sync>;

impl RunningSource {
    /// The folder source, if it is one.
    pub fn folder(&self) -> Option<&Arc<FolderHandle>> {
        self.folder.as_ref()
    }

    /// The bucket source, if it is one.
    pub fn bucket(&self) -> Option<&Arc<S3Handle>> {
        self.bucket.as_ref()
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
    ) -> Result<RunningSource, BringError> {
        let stop = self.stop_sources.child_token();
        let mut running = RunningSource {
            stop: stop.clone(),
            tasks: self.tasks.part(),
            folder: None,
            bucket: None,
        };
        let intake: Arc<dyn Intake> = Arc::new(self.router.clone());
        match what {
            Bringer::Source(Source::Folder(options)) => {
                running.folder = Some(self.folder(name, options, intake, &running).await?);
            }
            Bringer::Source(Source::S3(s3)) => {
                running.bucket = Some(self.bucket(s3, intake, &running).await?);
            }
            Bringer::Source(Source::Queue(queue)) => {
                let config = self.config();
                // Its connection is declared, or the files would not have been taken.
                if let Some(broker) = super::brokers::open(&config, &queue.on, "is a source") {
                    let source = QueueSource {
                        name: name.to_owned(),
                        broker,
                        bus: queue.bus.clone(),
                        defaults: config.node.event_defaults(),
                        intake,
                        clock: self.clock.clone(),
                    };
                    running.tasks.spawn(source.run(stop));
                }
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
    ) -> Result<Arc<FolderHandle>, BringError> {
        let started = FolderSource::start(
            FolderOptions {
                defaults: self.config().node.event_defaults(),
                ..options.clone()
            },
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

    async fn bucket(
        &self,
        source: &S3Source,
        intake: Arc<dyn Intake>,
        running: &RunningSource,
    ) -> Result<Arc<S3Handle>, BringError> {
        let config = self.config();
        let connection = source.connection.as_deref();
        let bucket = buckets::open(&config, connection, &source.options.bucket)?;
        let mut options = source.options.clone();
        options.defaults = config.node.event_defaults();
        if let Some(region) = buckets::region(&config, connection) {
            region.clone_into(&mut options.defaults.region);
        }
        let (handle, run) = s3::start(
            options,
            Arc::new(bucket.listing),
            intake,
            self.state.clone(),
            self.clock.clone(),
            running.stop.clone(),
        )
        .await?;
        running.tasks.spawn(run);
        Ok(Arc::new(handle))
    }
}
