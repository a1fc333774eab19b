//! Fetch of one range of one object: retries, resumption, and a hedged second request when the first is slow.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetResult, ObjectStore};

use super::options::RemoteOptions;
use crate::error::Cause;

/// Longest wait between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Latest requests whose latencies are kept.
const LATENCY_WINDOW: usize = 128;
/// Latencies that a hedge delay needs.
const MIN_SAMPLES: usize = 24;
/// Most failures of one range, over `attempts`, which bounds failures without progress.
const MAX_FAILURES_FACTOR: u32 = 8;
/// Shortest delay of a hedged request.
const MIN_HEDGE_DELAY: Duration = Duration::from_millis(20);

/// Range of a version of an object.
#[derive(Debug, Clone)]
pub(super) struct RangeRequest<'a> {
    /// Key of the object.
    pub(super) key: &'a Key,
    /// Bytes to fetch.
    pub(super) range: Range<u64>,
    /// Tag that the object must have, where one was seen.
    pub(super) tag: Option<&'a str>,
    /// Length that the object must have.
    pub(super) bytes: u64,
}

/// Failure to fetch a range.
#[derive(Debug)]
pub(super) enum FetchError {
    /// No such object.
    Missing,
    /// Object changed since it was first seen.
    Changed(String),
    /// Object of this unexpected length.
    Length(u64),
    /// Refusal by the store.
    Refused(object_store::Error),
    /// No answer, or one without the requested bytes.
    Unanswered {
        /// Problem, in words.
        problem: String,
        /// Last answer of the store, where there was one.
        source: Option<Cause>,
    },
}

/// Fetcher of a store's ranges, with the latencies of recent requests.
#[derive(Debug)]
pub(super) struct Fetcher {
    options: RemoteOptions,
    latencies: Mutex<VecDeque<Duration>>,
    jitter: AtomicU64,
}

impl Fetcher {
    /// Fetcher without latencies.
    pub(super) fn new(options: RemoteOptions) -> Self {
        Self { options, latencies: Mutex::default(), jitter: AtomicU64::new(0x9e37_79b9_7f4a_7c15) }
    }

    /// Fetches a range in one or more attempts, each of which resumes where the one before broke off.
    pub(super) async fn fetch(
        &self,
        store: &dyn ObjectStore,
        wanted: &RangeRequest<'_>,
    ) -> Result<Vec<u8>, FetchError> {
        let begun = Instant::now();
        let hedge_delay = self.hedge_delay();
        let fetched = match hedge_delay {
            None => self.fetch_with_retries(store, wanted).await,
            Some(hedge_delay) => self.hedged(store, wanted, hedge_delay).await,
        }?;
        self.record_latency(begun.elapsed());
        Ok(fetched)
    }

    /// Sends a second request when the first takes longer than `hedge_delay`; the first answer wins.
    async fn hedged(
        &self,
        store: &dyn ObjectStore,
        wanted: &RangeRequest<'_>,
        hedge_delay: Duration,
    ) -> Result<Vec<u8>, FetchError> {
        let first = std::pin::pin!(self.fetch_with_retries(store, wanted));
        let second = std::pin::pin!(async {
            tokio::time::sleep(hedge_delay).await;
            self.fetch_with_retries(store, wanted).await
        });
        match select(first, second).await {
            Either::Left((answer, _)) => answer,
            Either::Right((Ok(answer), _)) => Ok(answer),
            Either::Right((Err(_), first)) => first.await,
        }
    }

    async fn fetch_with_retries(
        &self,
        store: &dyn ObjectStore,
        wanted: &RangeRequest<'_>,
    ) -> Result<Vec<u8>, FetchError> {
        let mut bytes = Vec::new();
        let (mut failures, mut all) = (0, 0);
        loop {
            let before = bytes.len();
            let (problem, source) = match self.attempt(store, wanted, &mut bytes).await {
                Ok(()) => return Ok(bytes),
                Err(FetchError::Unanswered { problem, source }) => (problem, source),
                Err(failure) => return Err(failure),
            };
            // Progress resets the failures in a row, but not those in all.
            failures = if bytes.len() > before { 1 } else { failures + 1 };
            all += 1;
            if failures >= self.options.attempts || all >= MAX_FAILURES_FACTOR * self.options.attempts {
                let problem = format!(
                    "bytes {}..{} did not come in {all} attempts, the last: {problem}",
                    wanted.range.start, wanted.range.end
                );
                return Err(FetchError::Unanswered { problem, source });
            }
            tokio::time::sleep(self.backoff(failures)).await;
        }
    }

    /// Appends the missing rest of the range to `bytes`.
    async fn attempt(
        &self,
        store: &dyn ObjectStore,
        wanted: &RangeRequest<'_>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), FetchError> {
        let range = wanted.range.start + bytes.len() as u64..wanted.range.end;
        if range.is_empty() {
            return Ok(());
        }
        let options = GetOptions {
            range: Some(range.clone().into()),
            if_match: wanted.tag.map(str::to_owned),
            ..GetOptions::default()
        };
        let got =
            self.with_timeout(store.get_opts(wanted.key, options)).await?.map_err(FetchError::from_store)?;
        if got.meta.size != wanted.bytes {
            return Err(FetchError::Length(got.meta.size));
        }
        if got.range != range {
            return Err(FetchError::unanswered(format!("bytes {:?} came instead of {range:?}", got.range)));
        }
        let total = (wanted.range.end - wanted.range.start) as usize;
        self.receive(got, total, bytes).await
    }

    /// Appends the body of an answer, after which `bytes` must have `total` bytes.
    async fn receive(&self, got: GetResult, total: usize, bytes: &mut Vec<u8>) -> Result<(), FetchError> {
        bytes.reserve(total - bytes.len());
        let mut stream = got.into_stream();
        while let Some(chunk) = self.with_timeout(stream.next()).await? {
            let chunk = chunk.map_err(FetchError::from_store)?;
            if bytes.len() + chunk.len() > total {
                return Err(FetchError::unanswered("more bytes came than were asked for".to_owned()));
            }
            bytes.extend_from_slice(&chunk);
        }
        if bytes.len() < total {
            let problem = format!("the answer ended after {} of {total} bytes", bytes.len());
            return Err(FetchError::unanswered(problem));
        }
        Ok(())
    }

    async fn with_timeout<T>(&self, future: impl Future<Output = T>) -> Result<T, FetchError> {
        tokio::time::timeout(self.options.timeout, future)
            .await
            .map_err(|_| FetchError::unanswered(format!("nothing came for {:?}", self.options.timeout)))
    }

    /// Wait after `failures` failures: exponential backoff with jitter from half to all of it.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        let full = self.options.initial_backoff.saturating_mul(1 << (failures - 1).min(16)).min(MAX_BACKOFF);
        // A step of a linear congruential generator, so that processes that fail together retry at different times.
        let next = |state: u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let state = self.jitter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        let share = f64::from((state >> 40) as u32) / f64::from(1 << 24);
        full.mul_f64(0.5 + 0.5 * share)
    }

    /// 99th percentile of latencies; `None` before there are enough of them.
    fn hedge_delay(&self) -> Option<Duration> {
        let latencies = self.latencies.lock().expect("no thread panics holding it");
        if !self.options.hedge || latencies.len() < MIN_SAMPLES {
            return None;
        }
        let mut sorted: Vec<_> = latencies.iter().copied().collect();
        sorted.sort_unstable();
        Some(sorted[(sorted.len() * 99).div_ceil(100).min(sorted.len()) - 1].max(MIN_HEDGE_DELAY))
    }

    fn record_latency(&self, time: Duration) {
        let mut latencies = self.latencies.lock().expect("no thread panics holding it");
        if latencies.len() == LATENCY_WINDOW {
            latencies.pop_front();
        }
        latencies.push_back(time);
    }
}

impl FetchError {
    /// Failure behind a store's error. Only [`FetchError::Unanswered`] is transient.
    pub(super) fn from_store(error: object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::NotFound { .. } => Self::Missing,
            E::Precondition { .. } | E::NotModified { .. } => {
                Self::Changed("was changed after it was first looked at".to_owned())
            }
            E::Generic { .. } | E::JoinError { .. } => {
                Self::Unanswered { problem: error_chain(&error), source: Some(error.into()) }
            }
            _ => Self::Refused(error),
        }
    }

    fn unanswered(problem: String) -> Self {
        Self::Unanswered { problem, source: None }
    }
}

/// Message of an error and of its causes, each once, in a few lines at most.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
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
