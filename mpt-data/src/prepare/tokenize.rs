//! Reading and tokenizing units: one thread reads ahead, all others filter, hash and tokenize what it read, and one writes
//! what they made.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mpt_tokenize::Tokenizer;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::plan::PlannedRun;
use super::sketch::Sketch;
use super::unit::{DroppedDocument, TokenizedDocument, Unit, UnitSink};
use crate::config::SourceConfig;
use crate::error::{Error, Result};
use crate::filter::ngrams::NgramHashes;
use crate::filter::{BAD_LINE, DropReason, FilterOutcome, FilterScratch};
use crate::progress::{Phase, Progress};
use crate::source::{self, Record, SourceFile};

/// Text tokenized at once: enough to keep all cores busy, little enough to stay in bounds.
const BATCH_BYTES: usize = 8 << 20;
/// Text of the first batch, so that the other threads soon have work; each batch may have twice as much as the one before.
const FIRST_BATCH_BYTES: usize = 512 << 10;
const BATCH_DOCUMENTS: usize = 8192;
/// Batches read ahead.
const READ_AHEAD: usize = 1;
/// Batches that wait to be written.
const WRITE_BEHIND: usize = 1;

/// Reads and tokenizes units of a plan, in the order given.
///
/// # Errors
/// Those of the readers, of the tokenizer and of the sink; [`Error::Interrupted`].
pub(crate) fn tokenize(
    planned: &PlannedRun<'_>,
    units: &[usize],
    tokenizer: &Tokenizer,
    sink: &mut (dyn UnitSink + Send),
    progress: &mut dyn Progress,
) -> Result<()> {
    progress.start(Phase::Tokenize, units.iter().map(|&unit| planned.units[unit].bytes()).sum());
    let bytes_read = AtomicU64::new(0);
    let (to_encode, records) = sync_channel(READ_AHEAD);
    let (to_write, documents) = sync_channel(WRITE_BEHIND);
    let result = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_ahead(planned, units, &bytes_read, to_encode));
        let writer = scope.spawn(|| write_behind(planned, documents, sink));
        let mut read_progress = ReadProgress { progress, bytes_read: &bytes_read, told: 0 };
        // Each end of a channel ends the thread at the other.
        let encoded = encode_all(planned, records, tokenizer, to_write, &mut read_progress);
        let read = reader.join().expect("the reader returns its errors");
        let written = writer.join().expect("the writer returns its errors");
        // Where several failed, those before the one that did only noticed that nobody listens.
        written.and(encoded).and(read)
    });
    progress.finish();
    result
}

/// What a thread tells the next one of a unit.
enum UnitEvent<T> {
    Begin(usize),
    Batch(T),
    End,
}

fn read_ahead(
    planned: &PlannedRun<'_>,
    units: &[usize],
    bytes_read: &AtomicU64,
    to: SyncSender<UnitEvent<Vec<Record>>>,
) -> Result<()> {
    let mut most = FIRST_BATCH_BYTES;
    for &index in units {
        let unit = &planned.units[index];
        send(&to, UnitEvent::Begin(index))?;
        read_unit(&planned.run.sources[unit.source], unit, &mut most, bytes_read, &to)?;
        send(&to, UnitEvent::End)?;
    }
    Ok(())
}

/// Reads a unit in batches of at most so much text, or one document.
fn read_unit(
    config: &SourceConfig,
    unit: &Unit,
    most: &mut usize,
    bytes_read: &AtomicU64,
    to: &SyncSender<UnitEvent<Vec<Record>>>,
) -> Result<()> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for input in &unit.inputs {
        let file = SourceFile { path: &input.path, planned: &input.file, progress: bytes_read };
        source::read(config, &file, &mut |record| {
            bytes += match &record {
                Record::Document(document) => document.text.len(),
                Record::BadLine { problem, .. } => problem.len(),
            };
            batch.push(record);
            if bytes < *most && batch.len() < BATCH_DOCUMENTS {
                return Ok(());
            }
            bytes = 0;
            *most = (2 * *most).min(BATCH_BYTES);
            send(to, UnitEvent::Batch(std::mem::take(&mut batch)))
        })?;
    }
    send(to, UnitEvent::Batch(batch))
}

/// Nobody listens when the other side failed; its error is the one to tell.
fn send<T>(to: &SyncSender<UnitEvent<T>>, message: UnitEvent<T>) -> Result<()> {
    to.send(message).map_err(|_| Error::Interrupted)
}

/// Tells of bytes that another thread read.
struct ReadProgress<'a> {
    progress: &'a mut dyn Progress,
    bytes_read: &'a AtomicU64,
    told: u64,
}

impl ReadProgress<'_> {
    fn step(&mut self) -> Result<()> {
        let read = self.bytes_read.load(Ordering::Relaxed);
        self.progress.advance(read - self.told);
        self.told = read;
        if self.progress.keep_going() { Ok(()) } else { Err(Error::Interrupted) }
    }
}

/// Hands on what the reader tells, its records judged and tokenized.
fn encode_all(
    planned: &PlannedRun<'_>,
    from: Receiver<UnitEvent<Vec<Record>>>,
    tokenizer: &Tokenizer,
    to: SyncSender<UnitEvent<Vec<Encoded>>>,
    read_progress: &mut ReadProgress<'_>,
) -> Result<()> {
    let mut current = None;
    for message in from {
        let message = match message {
            UnitEvent::Begin(index) => {
                current = Some(&planned.units[index]);
                UnitEvent::Begin(index)
            }
            UnitEvent::Batch(records) => {
                let unit = current.expect("the reader begins each unit before it sends documents");
                UnitEvent::Batch(encode(planned, unit, records, tokenizer)?)
            }
            UnitEvent::End => UnitEvent::End,
        };
        let is_batch = matches!(message, UnitEvent::Batch(_));
        send(&to, message)?;
        if is_batch {
            read_progress.step()?;
        }
    }
    Ok(())
}

/// A record with what becomes of it.
struct Encoded {
    record: Record,
    fate: Fate,
    /// How many tokens the text as read has.
    tokens_read: u64,
    /// Those of the text that stays.
    tokens: Vec<u32>,
}

enum Fate {
    Kept { text_hash: u128, sketch: Sketch, edited: Option<String> },
    Dropped(DropReason),
}

/// Judges, hashes and tokenizes documents in parallel.
fn encode(
    planned: &PlannedRun<'_>,
    unit: &Unit,
    records: Vec<Record>,
    tokenizer: &Tokenizer,
) -> Result<Vec<Encoded>> {
    let failed = |source| Error::Tokenizer { path: unit.inputs[0].path.clone(), source };
    let encode = |scratches: &mut (FilterScratch, NgramHashes), record| {
        encode_one(planned, unit, record, tokenizer, scratches).map_err(failed)
    };
    // Documents are of very different lengths: each may go to another thread.
    records.into_par_iter().with_max_len(1).map_init(Default::default, encode).collect()
}

/// Every text is tokenized as it was read, so that its tokens can be accounted for; an edited one that stays also as it
/// stays.
fn encode_one(
    planned: &PlannedRun<'_>,
    unit: &Unit,
    record: Record,
    tokenizer: &Tokenizer,
    (scratch, runs): &mut (FilterScratch, NgramHashes),
) -> mpt_tokenize::Result<Encoded> {
    let document = match &record {
        Record::Document(document) => document,
        Record::BadLine { problem, .. } => {
            let fate = Fate::Dropped(DropReason { rule: BAD_LINE, value: problem.clone() });
            return Ok(Encoded { record, fate, tokens_read: 0, tokens: Vec::new() });
        }
    };
    let fate = match planned.judges[unit.source].judge(document, scratch) {
        FilterOutcome::Dropped(drop) => Fate::Dropped(drop),
        FilterOutcome::Kept(edited) => {
            let text = edited.as_deref().unwrap_or(&document.text);
            let sketch = planned.sketchers[unit.source].sketch(text, runs);
            Fate::Kept { text_hash: xxh3_128(text.as_bytes()), sketch, edited }
        }
    };
    let mut tokens = tokenizer.encode(&document.text)?;
    let tokens_read = tokens.len() as u64;
    if let Fate::Kept { edited: Some(edited), .. } = &fate {
        tokens = tokenizer.encode(edited)?;
    }
    Ok(Encoded { record, fate, tokens_read, tokens })
}

/// Gives the sink what was tokenized, in order, while what comes next is being tokenized.
fn write_behind(
    planned: &PlannedRun<'_>,
    from: Receiver<UnitEvent<Vec<Encoded>>>,
    sink: &mut dyn UnitSink,
) -> Result<()> {
    let mut fields_seen = 0;
    for message in from {
        match message {
            UnitEvent::Begin(index) => {
                fields_seen = 0;
                sink.begin(&planned.units[index])?;
            }
            UnitEvent::Batch(documents) => {
                for document in &documents {
                    fields_seen |= document.fields_seen();
                    document.give(sink)?;
                }
            }
            UnitEvent::End => sink.end(fields_seen)?,
        }
    }
    Ok(())
}

impl Encoded {
    fn give(&self, sink: &mut dyn UnitSink) -> Result<()> {
        let (id, text) = match &self.record {
            Record::Document(document) => (&document.id, document.text.as_str()),
            Record::BadLine { id, .. } => (id, ""),
        };
        let tokens_read = self.tokens_read;
        match &self.fate {
            Fate::Kept { text_hash, sketch, edited } => sink.keep(&TokenizedDocument {
                id,
                text_hash: *text_hash,
                text_bytes: edited.as_deref().unwrap_or(text).len() as u64,
                sketch,
                tokens: &self.tokens,
                tokens_read,
                is_edited: edited.is_some(),
            }),
            Fate::Dropped(drop) => sink.drop(&DroppedDocument { id, drop, tokens_read }),
        }
    }

    fn fields_seen(&self) -> u64 {
        let Record::Document(document) = &self.record else { return 0 };
        let seen = document.fields.iter().enumerate().filter(|(_, value)| value.is_some());
        seen.fold(0, |bits, (field, _)| bits | 1 << field)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mpt_tokenize::TrainConfig;

    use super::*;
    use crate::config::PrepareRun;
    use crate::progress::NoProgress;

    /// More units than the threads can hold between them.
    const UNITS: usize = 12;

    /// Fails from one call on, and counts all.
    struct Full {
        from: usize,
        calls: usize,
    }

    impl Full {
        fn call(&mut self) -> Result<()> {
            self.calls += 1;
            if self.calls < self.from { Ok(()) } else { Err(Error::input(Path::new("disk"), "is full")) }
        }
    }

    impl UnitSink for Full {
        fn begin(&mut self, _: &Unit) -> Result<()> {
            self.call()
        }
        fn keep(&mut self, _: &TokenizedDocument<'_>) -> Result<()> {
            self.call()
        }
        fn drop(&mut self, _: &DroppedDocument<'_>) -> Result<()> {
            self.call()
        }
        fn end(&mut self, _: u64) -> Result<()> {
            self.call()
        }
    }

    #[test]
    fn a_sink_that_fails_ends_all_threads_with_its_error() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut mix = "tokenizer = \"t.json\"\nseq_len = 8\n".to_owned();
        for i in 0..UNITS {
            std::fs::write(dir.path().join(format!("{i}.txt")), format!("text number {i}"))
                .expect("writable");
            mix += &format!(
                "[[sources]]\nname = \"s{i}\"\nrepeat = 1\npaths = [\"{i}.txt\"]\nformat = \"text\"\n"
            );
        }
        let run = PrepareRun::parse(&mix, &dir.path().join("mix.toml")).expect("sound");
        let config = TrainConfig { vocab_size: 300, min_frequency: 2 };
        let tokenizer = mpt_tokenize::train(["a text".to_owned()].into_iter(), &config).expect("trained");
        let tokenizer = Tokenizer::from_bytes(tokenizer, Path::new("t.json")).expect("sound");
        let planned = PlannedRun::new(&run, &tokenizer, None, &mut NoProgress).expect("planned");
        let units: Vec<_> = (0..UNITS).collect();
        // Of each unit: its beginning, its document, its end.
        let all = 3 * UNITS;
        for from in [1, 2, 3, all / 2, all] {
            let mut sink = Full { from, calls: 0 };
            let error = tokenize(&planned, &units, &tokenizer, &mut sink, &mut NoProgress).expect_err("full");
            assert_eq!((error.to_string().as_str(), sink.calls), ("disk: is full", from));
        }
        let mut sink = Full { from: usize::MAX, calls: 0 };
        tokenize(&planned, &units, &tokenizer, &mut sink, &mut NoProgress).expect("room for all");
        assert_eq!(sink.calls, all);
    }
}
