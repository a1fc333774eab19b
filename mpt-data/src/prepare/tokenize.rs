//! Reads and tokenizes units: one thread reads ahead, all others filter, hash and tokenize, and one writes behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mpt_tokenize::Tokenizer;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::plan::PlannedRun;
use super::unit::{DocumentHeader, DroppedDocument, TokenizedDocument, Unit, UnitRecord, UnitSink};
use crate::config::SourceConfig;
use crate::document::Document;
use crate::error::{Error, Result};
use crate::filter::ngrams::NgramHashes;
use crate::filter::{BAD_LINE, DropReason, FilterOutcome, FilterScratch};
use crate::progress::{Phase, Progress};
use crate::source::{self, Record, SourceFile};

/// Bytes of text in a batch: enough to keep all cores busy, little enough to bound memory.
const BATCH_BYTES: usize = 8 << 20;
/// Bytes of text in the first batch, so that the other threads soon have work. Each batch may be twice the one before.
const FIRST_BATCH_BYTES: usize = 512 << 10;
/// Documents in a batch, at most.
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
        let mut read_progress = ReadProgress { progress, bytes_read: &bytes_read, reported: 0 };
        // Each closed end of a channel ends the thread at the other end.
        let encoded = encode_all(planned, records, tokenizer, to_write, &mut read_progress);
        let read = reader.join().expect("the reader returns its errors");
        let written = writer.join().expect("the writer returns its errors");
        // Of several failures the last stage's is the cause: the stages before it found their channel closed.
        written.and(encoded).and(read)
    });
    progress.finish();
    result
}

/// Event of a unit that one thread passes to the next.
enum UnitEvent<T> {
    Begin(usize),
    Batch(T),
    End,
}

/// Tokenized documents of some records.
struct TokenizedBatch {
    documents: Vec<UnitRecord<TokenizedDocument>>,
    /// Bit `i`: some record had field `i` of the filters.
    fields_seen: u64,
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

/// Reads a unit in batches of at most `most` bytes of text, or one document.
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

/// Sends an event. A closed channel means that the other side failed, and its error is reported instead of this one.
fn send<T>(to: &SyncSender<UnitEvent<T>>, event: UnitEvent<T>) -> Result<()> {
    to.send(event).map_err(|_| Error::Interrupted)
}

/// Progress in bytes that another thread read.
struct ReadProgress<'a> {
    progress: &'a mut dyn Progress,
    bytes_read: &'a AtomicU64,
    reported: u64,
}

impl ReadProgress<'_> {
    fn advance(&mut self) -> Result<()> {
        let read = self.bytes_read.load(Ordering::Relaxed);
        self.progress.advance(read - self.reported);
        self.reported = read;
        if self.progress.keep_going() { Ok(()) } else { Err(Error::Interrupted) }
    }
}

/// Passes on the reader's events, with tokenized documents in place of records.
fn encode_all(
    planned: &PlannedRun<'_>,
    from: Receiver<UnitEvent<Vec<Record>>>,
    tokenizer: &Tokenizer,
    to: SyncSender<UnitEvent<TokenizedBatch>>,
    read_progress: &mut ReadProgress<'_>,
) -> Result<()> {
    let mut current = None;
    for event in from {
        let event = match event {
            UnitEvent::Begin(index) => {
                current = Some(&planned.units[index]);
                UnitEvent::Begin(index)
            }
            UnitEvent::Batch(records) => {
                let unit = current.expect("the reader begins each unit before it sends documents");
                UnitEvent::Batch(encode_batch(planned, unit, records, tokenizer)?)
            }
            UnitEvent::End => UnitEvent::End,
        };
        let is_batch = matches!(event, UnitEvent::Batch(_));
        send(&to, event)?;
        if is_batch {
            read_progress.advance()?;
        }
    }
    Ok(())
}

/// Filters, hashes and tokenizes records in parallel.
fn encode_batch(
    planned: &PlannedRun<'_>,
    unit: &Unit,
    records: Vec<Record>,
    tokenizer: &Tokenizer,
) -> Result<TokenizedBatch> {
    let fields_seen = records.iter().fold(0, |bits, record| bits | fields_seen(record));
    let failed = |source| Error::Tokenizer { path: unit.inputs[0].path.clone(), source };
    let encode = |scratch: &mut (FilterScratch, NgramHashes), record| match record {
        Record::BadLine { id, problem } => {
            let reason = DropReason { rule: BAD_LINE, value: problem };
            Ok(UnitRecord::Dropped(DroppedDocument { id, reason, tokens_read: 0 }))
        }
        Record::Document(document) => {
            encode_document(planned, unit.source, document, tokenizer, scratch).map_err(failed)
        }
    };
    // Documents differ much in length: each may go to another thread.
    let documents = records.into_par_iter().with_max_len(1).map_init(Default::default, encode);
    Ok(TokenizedBatch { documents: documents.collect::<Result<_>>()?, fields_seen })
}

/// Filters and tokenizes a document. The text as read is always tokenized, so that its tokens can be accounted for; an
/// edited text that stays is tokenized as well.
fn encode_document(
    planned: &PlannedRun<'_>,
    source: usize,
    document: Document,
    tokenizer: &Tokenizer,
    (scratch, ngrams): &mut (FilterScratch, NgramHashes),
) -> mpt_tokenize::Result<UnitRecord<TokenizedDocument>> {
    let outcome = planned.filters[source].apply(&document, scratch);
    let mut tokens = tokenizer.encode(&document.text)?;
    let (id, tokens_read) = (document.id, tokens.len() as u64);
    let edited = match outcome {
        FilterOutcome::Dropped(reason) => {
            return Ok(UnitRecord::Dropped(DroppedDocument { id, reason, tokens_read }));
        }
        FilterOutcome::Kept(edited) => edited,
    };
    let is_edited = edited.is_some();
    if let Some(text) = &edited {
        tokens = tokenizer.encode(text)?;
    }
    let text = edited.unwrap_or(document.text);
    let header = DocumentHeader {
        id,
        text_hash: xxh3_128(text.as_bytes()),
        text_bytes: text.len() as u64,
        tokens_read,
        tokens: tokens.len() as u64,
        is_edited,
    };
    let sketch = planned.sketchers[source].sketch(text, ngrams);
    Ok(UnitRecord::Passed(TokenizedDocument { header, sketch, tokens }))
}

fn fields_seen(record: &Record) -> u64 {
    let Record::Document(document) = record else { return 0 };
    let seen = document.fields.iter().enumerate().filter(|(_, value)| value.is_some());
    seen.fold(0, |bits, (field, _)| bits | 1 << field)
}

/// Passes tokenized documents to the sink, in order, while later ones are being tokenized.
fn write_behind(
    planned: &PlannedRun<'_>,
    from: Receiver<UnitEvent<TokenizedBatch>>,
    sink: &mut dyn UnitSink,
) -> Result<()> {
    let mut fields_seen = 0;
    for event in from {
        match event {
            UnitEvent::Begin(index) => {
                fields_seen = 0;
                sink.begin(&planned.units[index])?;
            }
            UnitEvent::Batch(batch) => {
                fields_seen |= batch.fields_seen;
                for document in &batch.documents {
                    match document {
                        UnitRecord::Passed(document) => sink.keep(document)?,
                        UnitRecord::Dropped(document) => sink.drop(document)?,
                    }
                }
            }
            UnitEvent::End => sink.end(fields_seen)?,
        }
    }
    Ok(())
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
        fn keep(&mut self, _: &TokenizedDocument) -> Result<()> {
            self.call()
        }
        fn drop(&mut self, _: &DroppedDocument) -> Result<()> {
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
