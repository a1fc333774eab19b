//! Reading and tokenizing units: one thread reads ahead, all others filter, hash and tokenize what it read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mpt_tokenize::Tokenizer;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::plan::{PlannedRun, Unit};
use crate::config::{PrepareRun, SourceConfig};
use crate::dedup::{self, MinHasher, StageKind};
use crate::error::{Error, Result};
use crate::filter::ngrams::Runs;
use crate::filter::{BAD_LINE, Drop, Scratch, Verdict};
use crate::progress::{Progress, Stage};
use crate::source::{self, InputFile, Record};

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
    /// A document did not, or is none.
    fn drop(&mut self, document: &DroppedDocument<'_>) -> Result<()>;
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
    /// What stages of deduplication look at.
    pub(crate) sketch: &'a Sketch,
    /// Its tokens.
    pub(crate) tokens: &'a [u32],
    /// How many tokens the text had before filters edited it.
    pub(crate) tokens_read: u64,
    /// Whether they did.
    pub(crate) is_edited: bool,
}

/// What is kept of a text for the stages of deduplication; empty where none needs it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sketch {
    /// Its signature.
    pub(crate) signature: Vec<u32>,
    /// The hashes of its paragraphs.
    pub(crate) paragraphs: Vec<u128>,
    /// The text itself.
    pub(crate) text: Option<String>,
}

/// Makes the sketches of a source.
#[derive(Debug)]
pub(crate) struct Sketcher {
    minhash: Option<MinHasher>,
    min_paragraph_words: Option<u64>,
}

impl Sketcher {
    /// What the stages that a source goes through need.
    pub(crate) fn new(run: &PrepareRun, source: usize) -> Self {
        let minhash = run.dedup.minhash().filter(|_| run.goes_through(source, StageKind::MinHash));
        let paragraphs = run.dedup.paragraphs().filter(|_| run.goes_through(source, StageKind::Paragraph));
        Self {
            minhash: minhash.map(MinHasher::new),
            min_paragraph_words: paragraphs.map(|settings| settings.min_words),
        }
    }

    /// The sketch of a text.
    pub(crate) fn sketch(&self, text: &str, runs: &mut Runs) -> Sketch {
        let paragraphs = self.min_paragraph_words.map(|words| dedup::paragraph_hashes(text, words));
        Sketch {
            signature: self.signature(text, runs),
            text: paragraphs.as_ref().map(|_| text.to_owned()),
            paragraphs: paragraphs.unwrap_or_default(),
        }
    }

    /// The signature of a text, where a stage needs it.
    pub(crate) fn signature(&self, text: &str, runs: &mut Runs) -> Vec<u32> {
        self.minhash.as_ref().map_or_else(Vec::new, |hasher| hasher.signature(text, runs))
    }
}

/// A document that did not pass the filters, or a line that is none.
pub(crate) struct DroppedDocument<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// Why.
    pub(crate) drop: &'a Drop,
    /// How many tokens its text as read had, none added.
    pub(crate) tokens_read: u64,
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
    Records(Vec<Record>),
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
        source::read(config, &file, &mut |record| {
            bytes += match &record {
                Record::Document(document) => document.text.len(),
                Record::BadLine { problem, .. } => problem.len(),
            };
            batch.push(record);
            if bytes < BATCH_BYTES && batch.len() < BATCH_DOCUMENTS {
                return Ok(());
            }
            bytes = 0;
            send(to, Message::Records(std::mem::take(&mut batch)))
        })?;
    }
    send(to, Message::Records(batch))
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
            (Message::Records(records), Some((unit, seen))) => {
                *seen |= batch(planned, unit, &records, tokenizer, sink)?;
                follow.step()?;
            }
            (Message::End, Some((_, seen))) => sink.end(*seen)?,
            (_, None) => unreachable!("the reader begins each unit before it sends documents"),
        }
    }
    Ok(())
}

/// Judges, hashes and tokenizes documents in parallel, and hands them on in order; returns which fields were seen.
///
/// Every text is tokenized as it was read, so that its tokens can be accounted for; an edited one that stays also as it
/// stays.
fn batch(
    planned: &PlannedRun<'_>,
    unit: &Unit,
    records: &[Record],
    tokenizer: &Tokenizer,
    sink: &mut dyn UnitSink,
) -> Result<u64> {
    let judge = |(scratch, runs): &mut (Scratch, Runs), record| judged(planned, unit, record, scratch, runs);
    let judged: Vec<Judged<'_>> = records.par_iter().map_init(Default::default, judge).collect();
    let texts: Vec<&str> =
        judged.iter().flat_map(|judged| judged.read.into_iter().chain(judged.edited())).collect();
    let path = &unit.inputs[0].path;
    let encoded =
        tokenizer.encode_batch(&texts).map_err(|source| Error::Tokenizer { path: path.clone(), source })?;
    let mut encoded = encoded.iter();
    let mut next = || encoded.next().expect("a list of tokens per text");
    for judged in &judged {
        let read = judged.read.map(|_| next());
        let tokens_read = read.map_or(0, |tokens| tokens.len() as u64);
        let id = judged.id;
        match (&judged.fate, read) {
            (Fate::Kept { text_hash, sketch, edited }, Some(read)) => sink.keep(&TokenizedDocument {
                id,
                text_hash: *text_hash,
                text_bytes: judged.edited().or(judged.read).map_or(0, str::len) as u64,
                sketch,
                tokens: if edited.is_some() { next() } else { read },
                tokens_read,
                is_edited: edited.is_some(),
            })?,
            (Fate::Dropped(drop), _) => sink.drop(&DroppedDocument { id, drop, tokens_read })?,
            (Fate::Kept { .. }, None) => unreachable!("only a document is kept"),
        }
    }
    Ok(records.iter().fold(0, |all, record| all | fields_seen(record)))
}

/// A record with what becomes of it.
struct Judged<'a> {
    id: &'a str,
    /// The text as read, if there is one.
    read: Option<&'a str>,
    fate: Fate,
}

enum Fate {
    Kept { text_hash: u128, sketch: Sketch, edited: Option<String> },
    Dropped(Drop),
}

impl Judged<'_> {
    /// The text that stays, where it is not the one read.
    fn edited(&self) -> Option<&str> {
        match &self.fate {
            Fate::Kept { edited, .. } => edited.as_deref(),
            Fate::Dropped(_) => None,
        }
    }
}

fn judged<'a>(
    planned: &PlannedRun<'_>,
    unit: &Unit,
    record: &'a Record,
    scratch: &mut Scratch,
    runs: &mut Runs,
) -> Judged<'a> {
    let document = match record {
        Record::Document(document) => document,
        Record::BadLine { id, problem } => {
            let fate = Fate::Dropped(Drop { rule: BAD_LINE, value: problem.clone() });
            return Judged { id, read: None, fate };
        }
    };
    let fate = match planned.judges[unit.source].judge(document, scratch) {
        Verdict::Dropped(drop) => Fate::Dropped(drop),
        Verdict::Kept(edited) => {
            let text = edited.as_deref().unwrap_or(&document.text);
            let sketch = planned.sketchers[unit.source].sketch(text, runs);
            Fate::Kept { text_hash: xxh3_128(text.as_bytes()), sketch, edited }
        }
    };
    Judged { id: &document.id, read: Some(&document.text), fate }
}

fn fields_seen(record: &Record) -> u64 {
    let Record::Document(document) = record else { return 0 };
    let seen = document.fields.iter().enumerate().filter(|(_, value)| value.is_some());
    seen.fold(0, |bits, (field, _)| bits | 1 << field)
}
