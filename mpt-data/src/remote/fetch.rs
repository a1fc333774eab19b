//! One range of one object, whatever goes wrong on the way.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use object_store::path::Path as Key;
use object_store::{GetOptions, ObjectStore};

use super::options::RemoteOptions;
use crate::error::Cause;

/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How many of the latest requests say what is slow, and how many there must be to say it.
const REMEMBERED: usize = 128;
const ENOUGH: usize = 24;
/// How many times the attempts that may fail in a row may fail in all.
const MANY: u32 = 8;
/// A second request is never sent earlier than this.
const SHORTEST_HEDGE: Duration = Duration::from_millis(20);

/// Which bytes are wanted, and of which version of the object.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    /// The object.
    pub(super) key: &'a Key,
    /// Its bytes.
    pub(super) range: Range<u64>,
    /// The tag it must have, where one was seen.
    pub(super) tag: Option<&'a str>,
    /// The length it must have.
    pub(super) bytes: u64,
}

/// Why a range did not come.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no such object.
    Missing,
    /// The object is not the one that was seen before.
    Changed(String),
    /// The object has another length than expected.
    Length(u64),
    /// The store does not give it.
    Refused(object_store::Error),
    /// The store does not answer, or not with what was asked for.
    Unanswered {
        /// What is wrong.
        problem: String,
        /// Its last answer, where it gave one.
        source: Option<Cause>,
    },
}

/// Fetches ranges of a store, and remembers how long that takes.
#[derive(Debug)]
pub(super) struct Fetcher {
    options: RemoteOptions,
    times: Mutex<VecDeque<Duration>>,
    jitter: AtomicU64,
}

impl Fetcher {
    /// A fetcher that has fetched nothing.
    pub(super) fn new(options: RemoteOptions) -> Self {
        Self { options, times: Mutex::default(), jitter: AtomicU64::new(0x9e37_79b9_7f4a_7c15) }
    }

    /// Fetches a range, in several attempts if need be: each goes on where the one before broke off.
    pub(super) async fn fetch(
        &self,
        store: &dyn ObjectStore,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let begun = Instant::now();
        let slow = self.slow();
        let fetched = match slow {
            None => self.persist(store, wanted).await,
            Some(slow) => self.hedged(store, wanted, slow).await,
        }?;
        self.remember(begun.elapsed());
        Ok(fetched)
    }

    /// A second request beside the first when that is slow; the first answer counts.
    async fn hedged(
        &self,
        store: &dyn ObjectStore,
        wanted: &Wanted<'_>,
        slow: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let first = std::pin::pin!(self.persist(store, wanted));
        let second = std::pin::pin!(async {
            tokio::time::sleep(slow).await;
            self.persist(store, wanted).await
        });
        match select(first, second).await {
            Either::Left((answer, _)) => answer,
            Either::Right((Ok(answer), _)) => Ok(answer),
            Either::Right((Err(_), first)) => first.await,
        }
    }

    async fn persist(&self, store: &dyn ObjectStore, wanted: &Wanted<'_>) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let (mut failures, mut all) = (0, 0);
        loop {
            let before = bytes.len();
            let (problem, source) = match self.attempt(store, wanted, &mut bytes).await {
                Ok(()) => return Ok(bytes),
                Err(Failure::Unanswered { problem, source }) => (problem, source),
                Err(failure) => return Err(failure),
            };
            // An attempt that brought something is no failure in a row, but there is an end to those as well.
            failures = if bytes.len() > before { 1 } else { failures + 1 };
            all += 1;
            if failures >= self.options.attempts || all >= MANY * self.options.attempts {
                let problem = format!(
                    "bytes {}..{} did not come in {all} attempts, the last: {problem}",
                    wanted.range.start, wanted.range.end
                );
                return Err(Failure::Unanswered { problem, source });
            }
            tokio::time::sleep(self.wait(failures)).await;
        }
    }

    /// Appends what is still missing.
    async fn attempt(
        &self,
        store: &dyn ObjectStore,
        wanted: &Wanted<'_>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let range = wanted.range.start + bytes.len() as u64..wanted.range.end;
        if range.is_empty() {
            return Ok(());
        }
        let options = GetOptions {
            range: Some(range.clone().into()),
            if_match: wanted.tag.map(str::to_owned),
            ..GetOptions::default()
        };
        let got = self.in_time(store.get_opts(wanted.key, options)).await?.map_err(Failure::of)?;
        if got.meta.size != wanted.bytes {
            return Err(Failure::Length(got.meta.size));
        }
        if got.range != range {
            return Err(Failure::unanswered(format!("bytes {:?} came instead of {range:?}", got.range)));
        }
        let total = (wanted.range.end - wanted.range.start) as usize;
        bytes.reserve(total - bytes.len());
        let mut stream = got.into_stream();
        while let Some(piece) = self.in_time(stream.next()).await? {
            let piece = piece.map_err(Failure::of)?;
            if bytes.len() + piece.len() > total {
                return Err(Failure::unanswered("more bytes came than were asked for".to_owned()));
            }
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() < total {
            let problem = format!("the answer ended after {} of {total} bytes", bytes.len());
            return Err(Failure::unanswered(problem));
        }
        Ok(())
    }

    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::time::timeout(self.options.patience, future)
            .await
            .map_err(|_| Failure::unanswered(format!("nothing came for {:?}", self.options.patience)))
    }

    /// From half to all of a wait that doubles with each failure.
    pub(super) fn wait(&self, failures: u32) -> Duration {
        let full = self.options.first_wait.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_WAIT);
        // A step of a linear congruential generator: processes that fail together do not come back together for long.
        let next = |state: u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let state = self.jitter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        let share = f64::from((state >> 40) as u32) / f64::from(1 << 24);
        full.mul_f64(0.5 + 0.5 * share)
    }

    /// A time that only one in a hundred requests took; `None` before that is known.
    fn slow(&self) -> Option<Duration> {
        let times = self.times.lock().expect("no thread panics holding it");
        if !self.options.hedge || times.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<_> = times.iter().copied().collect();
        sorted.sort_unstable();
        Some(sorted[(sorted.len() * 99).div_ceil(100).min(sorted.len()) - 1].max(SHORTEST_HEDGE))
    }

    fn remember(&self, time: Duration) {
        let mut times = self.times.lock().expect("no thread panics holding it");
        if times.len() == REMEMBERED {
            times.pop_front();
        }
        times.push_back(time);
    }
}

impl Failure {
    /// What a store's error means. Only [`Failure::Unanswered`] may pass.
    pub(super) fn of(error: object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::NotFound { .. } => Self::Missing,
            E::Precondition { .. } | E::NotModified { .. } => {
                Self::Changed("was changed after it was first looked at".to_owned())
            }
            E::Generic { .. } | E::JoinError { .. } => {
                Self::Unanswered { problem: chain(&error), source: Some(error.into()) }
            }
            _ => Self::Refused(error),
        }
    }

    fn unanswered(problem: String) -> Self {
        Self::Unanswered { problem, source: None }
    }
}

/// An error with its causes that it does not tell itself, in a few lines at most.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    let end = text.char_indices().map(|(at, _)| at).nth(600);
    end.map_or(text.clone(), |end| format!("{}…", &text[..end]))
}
