//! Sources and schedules: one started, one stopped, whatever its kind.

use super::notices::Notices;
use super::{Live, Node, Running, after, buckets, schedules};
use crate::config::{Config, S3Source, Schedule, Source};
use crate::sources::Intake;
use crate::sources::folder::{After, FolderHandle, FolderOptions, FolderSource};
use crate::sources::queue::{QueueHandle, QueueSource, QueueSourceOptions};
use crate::sources::s3::{self, S3Handle};
use crate::tasks::Tasks;
use std::collections::BTreeMap;
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
    queue: Option<Arc<QueueHandle>>,
}

/// Why a source does not start.
pub type BringError = Box<dyn std::error::Error + Send + Sync>;

impl RunningSource {
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
            queue: None,
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
                    let options = QueueSourceOptions {
                        name: name.to_owned(),
                        bus: queue.bus.clone(),
                        format: queue.format,
                        visibility: queue.visibility,
                        defaults: config.node.event_defaults(),
                    };
                    let intake = Arc::new(Notices {
                        source: name.to_owned(),
                        live: Arc::clone(&self.live),
                        bus: intake,
                    });
                    let clock = self.clock.clone();
                    let (source, handle) = QueueSource::new(options, broker, intake, clock);
                    running.queue = Some(Arc::new(handle));
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

    /// Lets everybody see the sources that run now.
    pub(super) fn publish_sources(&self, running: &Running) {
        fn of<T>(
            running: &Running,
            part: impl Fn(&RunningSource) -> Option<&Arc<T>>,
        ) -> BTreeMap<String, Arc<T>> {
            let sources = running.sources.iter();
            sources
                .filter_map(|(name, (_, source))| Some((name.clone(), Arc::clone(part(source)?))))
                .collect()
        }
        let folders = of(running, |source| source.folder.as_ref());
        let buckets = of(running, |source| source.bucket.as_ref());
        let queue_sources = of(running, |source| source.queue.as_ref());
        self.live.rcu(|live| Live {
            config: Arc::clone(&live.config),
            worked: live.worked.clone(),
            folders: folders.clone(),
            buckets: buckets.clone(),
            queue_sources: queue_sources.clone(),
        });
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
