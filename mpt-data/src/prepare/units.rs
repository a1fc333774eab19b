//! Reading and tokenizing units: one thread reads ahead, all others filter, hash and tokenize what it read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mpt_tokenize::Tokenizer;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::plan::{PlannedRun, Unit};
use crate::config::SourceConfig;
use crate::error::{Error, Result};
use crate::filter::{self, Drop};
use crate::progress::{Progress, Stage};
use crate::source::{self, Document, InputFile};

/// Text tokenized at once: enough to keep all cores busy, little enough to stay in bounds.
const BATCH_BYTES: usize = 8 << 20;
const BATCH_DOCUMENTS: usize = 8192;
/// Batches read ahead.
const READ_AHEAD: usize = 1;

/// Takes what becomes of the documents of each unit, in order.
pub(crate) trait UnitSink {
    /// A unit begins.
    fn begin(&mut self, unit: &Unit) -> Result<()>;
    /// A document passed the filters.
    fn keep(&mut self, document: &TokenizedDocument<'_>) -> Result<()>;
    /// A document did not.
    fn drop(&mut self, id: &str, drop: &Drop) -> Result<()>;
    /// The unit is complete. Bit `i` of `fields_seen`: some document had the filters' field `i`.
    fn end(&mut self, fields_seen: u64) -> Result<()>;
}

/// A document with its tokens, none added.
pub(crate) struct TokenizedDocument<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// The hash of its text.
    pub(crate) text_hash: u128,
    /// Bytes of its text.
    pub(crate) text_bytes: u64,
    /// Its tokens.
    pub(crate) tokens: &'a [u32],
}

/// Reads and tokenizes units of a plan, in the order given.
///
/// # Errors
/// Those of the readers, of the tokenizer and of the sink; [`Error::Interrupted`].
pub(crate) fn tokenize(
    planned: &PlannedRun<'_>,
    units: &[usize],
    tokenizer: &Tokenizer,
    sink: &mut dyn UnitSink,
    progress: &mut dyn Progress,
) -> Result<()> {
    progress.start(Stage::Tokenize, units.iter().map(|&unit| planned.units[unit].bytes()).sum());
    let bytes_read = AtomicU64::new(0);
    let (sender, receiver) = sync_channel(READ_AHEAD);
    let result = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_ahead(planned, units, &bytes_read, sender));
        let consumed = consume(
            planned,
            &receiver,
            tokenizer,
            sink,
            &mut Follow { progress, bytes_read: &bytes_read, told: 0 },
        );
        // The reader ends when nobody listens any more.
        drop(receiver);
        let read = reader.join().expect("the reader returns its errors");
        // Where both failed, the reader only noticed that nobody listens.
        consumed.and(read)
    });
    progress.finish();
    result
}

/// What the reading thread tells.
enum Message {
    Begin(usize),
    Documents(Vec<Document>),
    End,
}

fn read_ahead(
    planned: &PlannedRun<'_>,
    units: &[usize],
    bytes_read: &AtomicU64,
    to: SyncSender<Message>,
) -> Result<()> {
    for &index in units {
        let unit = &planned.units[index];
        send(&to, Message::Begin(index))?;
        read_unit(&planned.run.sources[unit.source], unit, bytes_read, &to)?;
        send(&to, Message::End)?;
    }
    Ok(())
}

fn read_unit(
    config: &SourceConfig,
    unit: &Unit,
    bytes_read: &AtomicU64,
    to: &SyncSender<Message>,
) -> Result<()> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for input in &unit.inputs {
        let file = InputFile { path: &input.path, name: &input.file.name, progress: bytes_read };
        source::read(config, &file, &mut |document| {
            bytes += document.text.len();
            batch.push(document);
            if bytes < BATCH_BYTES && batch.len() < BATCH_DOCUMENTS {
                return Ok(());
            }
            bytes = 0;
            send(to, Message::Documents(std::mem::take(&mut batch)))
        })?;
    }
    send(to, Message::Documents(batch))
}

/// Nobody listens when the other side failed; its error is the one to tell.
fn send(to: &SyncSender<Message>, message: Message) -> Result<()> {
    to.send(message).map_err(|_| Error::Interrupted)
}

/// Tells of bytes that another thread read.
struct Follow<'a> {
    progress: &'a mut dyn Progress,
    bytes_read: &'a AtomicU64,
    told: u64,
}

impl Follow<'_> {
    fn step(&mut self) -> Result<()> {
        let read = self.bytes_read.load(Ordering::Relaxed);
        self.progress.advance(read - self.told);
        self.told = read;
        if self.progress.keep_going() { Ok(()) } else { Err(Error::Interrupted) }
    }
}

fn consume(
    planned: &PlannedRun<'_>,
    from: &Receiver<Message>,
    tokenizer: &Tokenizer,
    sink: &mut dyn UnitSink,
    follow: &mut Follow<'_>,
) -> Result<()> {
    let mut current: Option<(&Unit, u64)> = None;
    while let Ok(message) = from.recv() {
        match (message, &mut current) {
            (Message::Begin(index), slot) => {
                let unit = &planned.units[index];
                sink.begin(unit)?;
                *slot = Some((unit, 0));
            }
            (Message::Documents(documents), Some((unit, seen))) => {
                let config = &planned.run.sources[unit.source];
                *seen |= batch(config, unit, &documents, tokenizer, sink)?;
                follow.step()?;
            }
            (Message::End, Some((_, seen))) => sink.end(*seen)?,
            (_, None) => unreachable!("the reader begins each unit before it sends documents"),
        }
    }
    Ok(())
}

/// Judges, hashes and tokenizes documents in parallel, and hands them on in order; returns which fields were seen.
fn batch(
    config: &SourceConfig,
    unit: &Unit,
    documents: &[Document],
    tokenizer: &Tokenizer,
    sink: &mut dyn UnitSink,
) -> Result<u64> {
    let judge = |document: &Document| match filter::judge(document, &config.filters) {
        Some(drop) => Err(drop),
        None => Ok(xxh3_128(document.text.as_bytes())),
    };
    let verdicts: Vec<Result<u128, Drop>> = documents.par_iter().map(judge).collect();
    let kept = documents.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok());
    let texts: Vec<&str> = kept.map(|(document, _)| document.text.as_str()).collect();
    let path = &unit.inputs[0].path;
    let encoded =
        tokenizer.encode_batch(&texts).map_err(|source| Error::Tokenizer { path: path.clone(), source })?;
    let mut encoded = encoded.iter();
    for (document, verdict) in documents.iter().zip(&verdicts) {
        match verdict {
            Err(drop) => sink.drop(&document.id, drop)?,
            Ok(text_hash) => sink.keep(&TokenizedDocument {
                id: &document.id,
                text_hash: *text_hash,
                text_bytes: document.text.len() as u64,
                tokens: encoded.next().expect("a list of tokens per text"),
            })?,
        }
    }
    Ok(fields_seen(documents))
}

fn fields_seen(documents: &[Document]) -> u64 {
    let bits = |document: &Document| {
        document
            .fields
            .iter()
            .enumerate()
            .filter(|(_, value)| value.is_some())
            .fold(0, |bits, (field, _)| bits | 1 << field)
    };
    documents.iter().map(bits).fold(0, |all, bits| all | bits)
}
