//! A walk through the listing, page by page, against the ledger.

use super::engine::{Engine, Halt};
use super::ledger::{Entry, Row, Standing, identity, version_of};
use super::listing::{Begin, ListError, Listed, Page, What};
use super::options::PAGE_KEYS;
use super::status::WalkReport;
use super::submit::{Candidate, Kind};
use crate::sources::folder::Start;
use roaring::RoaringTreemap;
use std::time::Duration;

/// How often a page is asked for again before the walk is given up.
const PAGE_TRIES: u32 = 6;
/// How often a walk is begun anew because its place was lost.
const ANEW_MAX: u64 = 5;
/// Rows of the ledger that are looked at together.
const ROWS: usize = 5_000;

impl Engine {
    fn what(&self) -> What {
        match self.options.versions {
            true => What::Versions,
            false => What::Objects,
        }
    }

    /// Lists everything, or the end of it; says how many versions were new.
    pub(super) async fn walk(&mut self, full: bool) -> Result<u64, Halt> {
        self.walks += 1;
        let (began, began_ms) = (self.clock.monotonic(), self.clock.now_ms());
        let mut report = WalkReport {
            number: self.walks,
            full,
            began_ms,
            ..WalkReport::default()
        };
        // Rows that come in while we walk are not looked for in the listing.
        let last = self.ledger.last_id().await?;
        let mut seen = RoaringTreemap::new();
        let mut from = match full {
            true => Begin::Start,
            false => self.near_the_end().await?,
        };
        let mut anew = 0;
        loop {
            let page = match self.page(&from).await {
                Err(Halt::List(ListError::Token(_))) if anew < ANEW_MAX => {
                    // What was seen already is known, and so is no news.
                    anew += 1;
                    self.board.count(|counts| counts.begun_anew += 1);
                    from = Begin::Start;
                    continue;
                }
                page => page?,
            };
            report.pages += 1;
            report.keys += page.entries.len() as u64;
            report.found += self.compare(page.entries, &mut seen).await?;
            self.commands().await?;
            match page.next {
                Some(next) => from = Begin::Token(next),
                None => break,
            }
        }
        if full {
            self.sweep(&seen, last).await?;
            if !self.baseline_done {
                self.ledger.finish_baseline().await?;
                self.baseline_done = true;
            }
            let kept = i64::try_from(self.options.forget_after.as_millis()).unwrap_or(i64::MAX);
            self.ledger.expire(began_ms.saturating_sub(kept)).await?;
        }
        let took = self.clock.monotonic().saturating_sub(began);
        report.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.board.update(|status| status.last_walk = Some(report));
        if self.options.notified && self.walks > 1 {
            self.board
                .count(|counts| counts.missed_by_hints += report.found);
        }
        Ok(report.found)
    }

    /// Where a short walk of ordered keys begins: a page before the last one.
    async fn near_the_end(&self) -> Result<Begin, Halt> {
        let key = self
            .ledger
            .near_the_end(&self.options.prefix, PAGE_KEYS)
            .await?;
        Ok(key.map_or(Begin::Start, Begin::After))
    }

    /// One page; asked for again while the server does not answer.
    async fn page(&self, from: &Begin) -> Result<Page, Halt> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.board.count(|counts| counts.list_calls += 1);
            let asked = tokio::select! {
                () = self.cancel.cancelled() => return Err(Halt::End),
                asked = self.listing.page(&self.options.prefix, self.what(), from) => asked,
            };
            match asked {
                Err(ListError::Unavailable(why)) if tries < PAGE_TRIES => {
                    self.board.fail(&why, self.clock.now_ms());
                    self.sleep(Duration::from_millis(250 << tries)).await?;
                }
                asked => return Ok(asked?),
            }
        }
    }

    /// Compares objects with the ledger, and hands in what is new.
    pub(super) async fn compare(
        &mut self,
        listed: Vec<Listed>,
        seen: &mut RoaringTreemap,
    ) -> Result<u64, Halt> {
        let rows = self.ledger.rows(&listed).await?;
        let mut fresh = Vec::new();
        let mut quiet = Vec::new();
        for one in listed {
            let version = version_of(self.options.versions, &one).to_owned();
            let row = rows.get(&(one.key.clone(), version));
            if let Some(row) = row {
                seen.insert(row.id.cast_unsigned());
            }
            if !self.keys.takes(&one.key, one.size) {
                continue;
            }
            match self.judge(one, row).await? {
                Verdict::Known => {}
                Verdict::Quiet(entry) => quiet.push(entry),
                Verdict::New(candidate) => fresh.push(candidate),
            }
        }
        // The versions of a key come with the newest first.
        fresh.sort_by_key(|candidate: &Candidate| candidate.listed.modified_ms);
        self.ledger.put(quiet, self.clock.now_ms()).await?;
        let found = fresh.len() as u64;
        self.submit(fresh, "listed").await?;
        Ok(found)
    }

    /// What an object is to us.
    pub(super) async fn judge(&self, listed: Listed, row: Option<&Row>) -> Result<Verdict, Halt> {
        let Some(row) = row else {
            return Ok(match self.too_old(&listed) {
                true => Verdict::Quiet(Entry {
                    listed,
                    standing: Standing::Noted,
                    salt: 0,
                    reason: None,
                }),
                false => Verdict::New(Candidate::of(listed, 0)),
            });
        };
        let is = identity(&row.version, &listed.etag, listed.modified_ms, row.salt);
        match row.standing {
            Standing::Forgotten => Ok(Verdict::New(Candidate::of(listed, row.salt))),
            // It was gone and is back as it was.
            Standing::Gone if is == row.identity() => Ok(Verdict::Quiet(Entry {
                listed,
                standing: Standing::Accepted,
                salt: row.salt,
                reason: None,
            })),
            _ if is == row.identity() => Ok(Verdict::Known),
            // An older version than the one known: a listing that lags behind,
            // or an object that was put back. The object itself knows.
            _ if listed.modified_ms.div_euclid(1000) < row.modified_ms.div_euclid(1000) => {
                match self.ask(&listed.key, None).await? {
                    Some(now)
                        if identity(&row.version, &now.etag, now.modified_ms, row.salt)
                            != row.identity() =>
                    {
                        Ok(Verdict::New(Candidate::of(now, row.salt)))
                    }
                    _ => Ok(Verdict::Known),
                }
            }
            _ => Ok(Verdict::New(Candidate::of(listed, row.salt))),
        }
    }

    /// Asks for one object.
    pub(super) async fn ask(
        &self,
        key: &str,
        version: Option<&str>,
    ) -> Result<Option<Listed>, Halt> {
        self.board.count(|counts| counts.head_calls += 1);
        Ok(self.listing.head(key, version).await?)
    }

    /// Whether an object was there before the first start and is not wanted.
    fn too_old(&self, listed: &Listed) -> bool {
        match self.options.start {
            _ if self.baseline_done => false,
            Start::All => false,
            // Times in listings are whole seconds, rounded down.
            Start::Now => listed.modified_ms < self.ledger.first_start_ms - 1000,
            Start::Since(ms) => listed.modified_ms < ms,
        }
    }

    /// Notes what is not in the bucket any more.
    async fn sweep(&mut self, seen: &RoaringTreemap, last: i64) -> Result<(), Halt> {
        let mut after = 0;
        loop {
            let rows = self.ledger.present(after, last, ROWS).await?;
            let Some(end) = rows.last() else {
                return Ok(());
            };
            after = end.id;
            let gone: Vec<Row> = rows
                .into_iter()
                .filter(|row| !seen.contains(row.id.cast_unsigned()))
                .filter(|row| row.key.starts_with(&self.options.prefix))
                .collect();
            self.gone(gone).await?;
            self.commands().await?;
        }
    }

    /// These are gone; the bus is told, where it wants to know.
    pub(super) async fn gone(&mut self, rows: Vec<Row>) -> Result<(), Halt> {
        let ids = rows.iter().map(|row| row.id).collect();
        if self.options.deletes {
            let told = rows
                .into_iter()
                .filter(|row| matches!(row.standing, Standing::Accepted))
                .filter(|row| self.keys.takes(&row.key, row.size))
                .map(|row| Candidate {
                    kind: Kind::Deleted,
                    salt: row.salt,
                    sequencer: None,
                    listed: Listed {
                        key: row.key,
                        size: row.size,
                        etag: row.etag,
                        modified_ms: row.modified_ms,
                        version: (!row.version.is_empty()).then_some(row.version),
                        deleted: false,
                        class: None,
                    },
                });
            self.submit(told.collect(), "gone").await?;
        }
        let now = self.clock.now_ms();
        Ok(self.ledger.stand(ids, Standing::Gone, now).await?)
    }
}

/// What an object is to us.
pub enum Verdict {
    /// Nothing new.
    Known,
    /// To be noted, and not told.
    Quiet(Entry),
    /// To be told.
    New(Candidate),
}
