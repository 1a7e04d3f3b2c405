//! Two writers of one Delta table in a bucket, and stores that can have none.

use super::load::{TYPED, published};
use super::world::{World, handle};
use crate::support::seaweedfs;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use pointsman::handlers::load::Warehouse;
use pointsman::handlers::load::options::Mode;
use pointsman::handlers::{Class, Done, Failure};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Barrier;

/// A bucket that does something of its own with what is created in it.
#[derive(Debug)]
struct Between {
    bucket: Arc<dyn ObjectStore>,
    how: How,
}

#[derive(Debug)]
enum How {
    /// Waits before the first commit until the other writer is as far.
    Meet(Arc<Barrier>, AtomicBool),
    /// Takes conditions and overlooks them.
    Overlook,
}

impl std::fmt::Display for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bucket.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Between {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        match &self.how {
            How::Overlook => options.mode = PutMode::Overwrite,
            How::Meet(both, met) => {
                let commit = location.as_ref().contains("/_delta_log/");
                if commit && !met.swap(true, Ordering::SeqCst) {
                    both.wait().await;
                }
            }
        }
        self.bucket.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.bucket.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.bucket.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.bucket.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.bucket.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.bucket.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.bucket.copy_opts(from, to, options).await
    }
}

/// Two warehouses that are one; within this process they wait for each other
/// by name only, and have different ones.
struct Two {
    bucket: Arc<dyn ObjectStore>,
}

impl Two {
    fn new() -> Self {
        let server = seaweedfs::shared();
        let bucket: Arc<dyn ObjectStore> = Arc::new(server.store(&server.bucket("delta")));
        Self { bucket }
    }

    fn plain(&self) -> Warehouse {
        Warehouse::in_bucket(Arc::clone(&self.bucket), "plain".to_owned(), "w".to_owned())
    }

    /// Two writers, neither of which commits before both could.
    fn writers(&self) -> [Warehouse; 2] {
        let both = Arc::new(Barrier::new(2));
        ["one", "two"].map(|name| {
            let between = Between {
                bucket: Arc::clone(&self.bucket),
                how: How::Meet(Arc::clone(&both), AtomicBool::new(false)),
            };
            Warehouse::in_bucket(Arc::new(between), name.to_owned(), "w".to_owned())
        })
    }

    /// Whole numbers in the column `id` of the table, sorted; and its version.
    async fn ids(&self) -> (Vec<i64>, u64) {
        let table = self.plain().existing("t").await.unwrap().expect("a table");
        let version = table.version().expect("a version");
        let context = datafusion::prelude::SessionContext::new();
        let frame = context
            .read_table(table.table_provider().await.unwrap())
            .unwrap();
        let mut ids = Vec::new();
        for batch in frame.collect().await.unwrap() {
            let column = batch.column_by_name("id").unwrap();
            ids.extend(column.as_primitive::<Int64Type>().values());
        }
        ids.sort_unstable();
        (ids, version)
    }
}

fn again(done: &Result<Done, Failure>) -> bool {
    done.as_ref().unwrap().summary["already_loaded"]
        .as_bool()
        .unwrap()
}

async fn load_both(
    world: &World,
    two: &Two,
    mode: &Mode,
    first: &str,
    second: &str,
) -> BTreeSet<bool> {
    let name = |csv: &str| {
        format!(
            "{:x}.csv",
            csv.len() * 31 + csv.bytes().map(usize::from).sum::<usize>()
        )
    };
    let one = published(world, &name(first), first, TYPED).await;
    let other = match first == second {
        true => one.clone(),
        false => published(world, &name(second), second, TYPED).await,
    };
    let loads = two
        .writers()
        .map(|warehouse| world.load_into(warehouse, "t", mode.clone()));
    let (a, b) = tokio::join!(handle(&loads[0], one), handle(&loads[1], other));
    [again(&a), again(&b)].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_at_once_both_keep_their_rows() {
    let world = World::new();
    let two = Two::new();
    // The table is made by whoever is first.
    load_both(&world, &two, &Mode::Append, "id,v\n1,a\n", "id,v\n2,b\n").await;
    assert_eq!(two.ids().await, (vec![1, 2], 1));
    load_both(&world, &two, &Mode::Append, "id,v\n3,a\n", "id,v\n4,b\n").await;
    assert_eq!(two.ids().await, (vec![1, 2, 3, 4], 3));
    // Both see that the key 5 is not there; one of them looks again.
    let by_id = Mode::upsert(vec!["id".to_owned()]);
    load_both(&world, &two, &by_id, "id,v\n5,x\n", "id,v\n5,y\n").await;
    assert_eq!(two.ids().await, (vec![1, 2, 3, 4, 5], 5));
    let partition = Mode::ReplacePartition {
        by: vec!["v".to_owned()],
    };
    load_both(&world, &two, &partition, "id,v\n6,a\n", "id,v\n7,a\n").await;
    let (ids, _) = two.ids().await;
    // Of the two only the later one is there, whichever that was.
    assert!(ids == [2, 4, 5, 6] || ids == [2, 4, 5, 7], "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_of_one_publication_one_loads_it() {
    let world = World::new();
    let two = Two::new();
    for (round, csv) in ["id,v\n1,a\n", "id,v\n2,b\n"].into_iter().enumerate() {
        let told = load_both(&world, &two, &Mode::Append, csv, csv).await;
        assert_eq!(told, BTreeSet::from([false, true]));
        let (ids, version) = two.ids().await;
        assert_eq!((ids.len(), version), (round + 1, round as u64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_overlooks_conditions_gets_no_table() {
    let world = World::new();
    let two = Two::new();
    let between = Between {
        bucket: Arc::clone(&two.bucket),
        how: How::Overlook,
    };
    let careless = Warehouse::in_bucket(Arc::new(between), "b".to_owned(), "w".to_owned());
    let event = published(&world, "1.csv", "id,v\n1,a\n", TYPED).await;
    let load = world.load_into(careless, "t", Mode::Append);
    let failure = handle(&load, event).await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("NoConditionalPut", Class::Permanent)
    );
    assert!(two.plain().existing("t").await.unwrap().is_none());
}
