//! The pool against a plain model: one vector of tokens per sequence.

use candle_core::Tensor;
use proptest::prelude::*;

use super::*;
use crate::batch::Batch;

const HEADS: usize = 2;
const E: usize = 4;

fn config() -> MptConfig {
    let mut config = MptConfig::mpt(16, 2, 4, 8, 8).expect("possible sizes");
    config.attn_config.kv_n_heads = HEADS;
    config
}

fn pool(pages: usize, dtype: KvDtype) -> KvPool {
    KvPool::new(&config(), pages * PAGE, dtype).expect("room")
}

/// Keys (`half` 0) or values (`half` 1) of tokens in a layer, `[tokens, heads, e]`; exact in every `KvDtype`.
fn vectors(tokens: &[u32], layer: usize, half: usize) -> Tensor {
    let element = |token: u32, head: usize, i: usize| {
        let x = (token as usize * 7 + layer * 3 + half * 5 + head * 11 + i * 13) % 120;
        if i == 0 { 127.0 } else { x as f32 }
    };
    let token = |&token: &u32| (0..HEADS * E).map(move |at| element(token, at / E, at % E));
    let data: Vec<f32> = tokens.iter().flat_map(token).collect();
    Tensor::from_vec(data, (tokens.len(), HEADS, E), &candle_core::Device::Cpu).expect("as many numbers")
}

/// Runs a forward pass without the commit.
fn forward(pool: &mut KvPool, batch: &Batch) -> Result<()> {
    pool.begin(batch)?;
    for layer in 0..config().n_layers {
        let [keys, values] = [0, 1].map(|half| vectors(batch.tokens(), layer, half));
        pool.append(layer, batch, &keys, &values)?;
    }
    Ok(())
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().and_then(|x| x.to_vec1()).expect("f32")
}

/// Asserts that a sequence holds exactly these tokens.
fn assert_holds(pool: &KvPool, id: SeqId, tokens: &[u32]) {
    assert_eq!(pool.len(id), tokens.len());
    for layer in 0..config().n_layers {
        let (keys, values) = pool.gather(layer, id, 0).expect("a sequence of the pool");
        assert_eq!(flat(&keys), flat(&vectors(tokens, layer, 0)), "keys of layer {layer}");
        assert_eq!(flat(&values), flat(&vectors(tokens, layer, 1)), "values of layer {layer}");
    }
}

/// Asserts that reference counts match the page tables, and that every other page is free.
fn assert_counts(pool: &KvPool) {
    let mut owners: BTreeMap<u32, u32> = BTreeMap::new();
    for page in pool.sequences.values().flat_map(|sequence| &sequence.pages) {
        *owners.entry(*page).or_default() += 1;
    }
    assert_eq!(pool.used_pages(), owners.len());
    assert_eq!(pool.free_pages() + pool.used_pages(), pool.total_pages());
    for (page, count) in owners {
        assert_eq!(pool.allocator.ref_count(page), count, "page {page}");
    }
}

/// Lengths, page tables and reference counts.
fn state(pool: &KvPool) -> String {
    format!("{:?} {:?}", pool.sequences, pool.allocator)
}

#[derive(Clone, Debug)]
enum Step {
    Add,
    Fork(usize, usize),
    Truncate(usize, usize),
    Remove(usize),
    /// New tokens of some sequences, and whether they are committed.
    Forward(Vec<(usize, usize)>, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tokens = || prop_oneof![Just(1usize), 1usize..70, 60usize..200];
    let step = prop_oneof![
        2 => Just(Step::Add),
        3 => (0usize..8, 0usize..300).prop_map(|(at, len)| Step::Fork(at, len)),
        2 => (0usize..8, 0usize..300).prop_map(|(at, len)| Step::Truncate(at, len)),
        1 => (0usize..8).prop_map(Step::Remove),
        8 => (proptest::collection::vec((0usize..8, tokens()), 1..4), prop::bool::weighted(0.8))
            .prop_map(|(new, commits)| Step::Forward(new, commits)),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A pool with the tokens its sequences should hold.
struct Modelled {
    pool: KvPool,
    expected: Vec<(SeqId, Vec<u32>)>,
    next_token: u32,
}

impl Modelled {
    fn take(&mut self, step: &Step) {
        let count = self.expected.len();
        match step {
            Step::Add => self.expected.push((self.pool.add(), Vec::new())),
            _ if count == 0 => {}
            &Step::Fork(at, len) => {
                let (id, tokens) = &self.expected[at % count];
                let len = len.min(tokens.len());
                let fork = (self.pool.fork(*id, len).expect("tokens held"), tokens[..len].to_vec());
                self.expected.push(fork);
            }
            &Step::Truncate(at, len) => {
                let (id, tokens) = &mut self.expected[at % count];
                tokens.truncate(len);
                self.pool.truncate(*id, len);
            }
            &Step::Remove(at) => {
                let (id, _) = self.expected.swap_remove(at % count);
                self.pool.remove(id);
            }
            Step::Forward(new, commits) => self.forward(new, *commits),
        }
    }

    fn forward(&mut self, new: &[(usize, usize)], commits: bool) {
        let mut batch = Batch::new();
        let mut longer = self.expected.clone();
        for (at, n) in new {
            let (id, tokens) = &mut longer[at % self.expected.len()];
            let new: Vec<u32> = (self.next_token..).take(*n).collect();
            if batch.push(*id, &new).is_ok() {
                tokens.extend(&new);
                self.next_token += *n as u32;
            }
        }
        self.pool.rollback();
        let before = state(&self.pool);
        match forward(&mut self.pool, &batch) {
            Ok(()) if commits => {
                self.pool.commit(&batch).expect("a batch that has begun");
                self.expected = longer;
            }
            Ok(()) => {}
            Err(error) => {
                assert!(matches!(error, Error::PoolFull { .. }), "{error}");
                assert_eq!(state(&self.pool), before, "a full pool is as it was");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn sequences_hold_their_own_tokens_whatever_is_shared(steps in steps(), pages in 3usize..30, kv in 0usize..3) {
        let dtype = KvDtype::ALL[kv];
        let mut modelled = Modelled { pool: pool(pages, dtype), expected: Vec::new(), next_token: 0 };
        for step in &steps {
            modelled.take(step);
            assert_counts(&modelled.pool);
            for (id, tokens) in &modelled.expected {
                assert_holds(&modelled.pool, *id, tokens);
            }
        }
        modelled.pool.rollback();
        modelled.expected.iter().for_each(|(id, _)| modelled.pool.remove(*id));
        prop_assert_eq!(modelled.pool.used_pages(), 0);
    }
}

fn extend(pool: &mut KvPool, id: SeqId, tokens: &[u32]) -> Result<()> {
    let mut batch = Batch::new();
    batch.push(id, tokens)?;
    forward(pool, &batch)?;
    pool.commit(&batch)
}

fn token_ids(from: u32, n: usize) -> Vec<u32> {
    (from..).take(n).collect()
}

#[test]
fn forks_share_pages_until_one_writes() {
    for dtype in KvDtype::ALL {
        let mut pool = pool(6, dtype);
        let a = pool.add();
        extend(&mut pool, a, &token_ids(0, 100)).unwrap();
        let b = pool.fork(a, 90).unwrap();
        assert_eq!(pool.used_pages(), 2, "both pages are shared");
        extend(&mut pool, b, &token_ids(500, 3)).unwrap();
        assert_eq!(pool.used_pages(), 3, "the page that is written to was copied");
        extend(&mut pool, a, &token_ids(100, 2)).unwrap();
        assert_eq!(pool.used_pages(), 3, "its other sequence has it alone");
        assert_holds(&pool, a, &token_ids(0, 102));
        assert_holds(&pool, b, &[token_ids(0, 90), token_ids(500, 3)].concat());
        pool.remove(a);
        assert_eq!(pool.used_pages(), 2);
        assert_holds(&pool, b, &[token_ids(0, 90), token_ids(500, 3)].concat());
    }
}

#[test]
fn sequences_that_write_to_one_page_together_leave_it_to_the_last() {
    let mut pool = pool(3, KvDtype::Bf16);
    let a = pool.add();
    extend(&mut pool, a, &token_ids(0, 10)).unwrap();
    let (b, c) = (pool.fork(a, 10).unwrap(), pool.fork(a, 9).unwrap());
    let mut batch = Batch::new();
    for (id, token) in [(a, 100), (b, 200), (c, 300)] {
        batch.push(id, &[token]).unwrap();
    }
    forward(&mut pool, &batch).unwrap(); // two copies fill the pool
    pool.commit(&batch).unwrap();
    assert_eq!(pool.free_pages(), 0);
    assert_holds(&pool, a, &[token_ids(0, 10), vec![100]].concat());
    assert_holds(&pool, b, &[token_ids(0, 10), vec![200]].concat());
    assert_holds(&pool, c, &[token_ids(0, 9), vec![300]].concat());
}

#[test]
fn a_full_pool_says_what_it_lacks_and_is_as_it_was() {
    let mut pool = pool(2, KvDtype::F32);
    let (a, b) = (pool.add(), pool.add());
    extend(&mut pool, a, &token_ids(0, 60)).unwrap();
    let before = state(&pool);
    let mut batch = Batch::new();
    batch.push(a, &token_ids(60, 10)).unwrap();
    batch.push(b, &token_ids(0, 1)).unwrap();
    let error = pool.begin(&batch).unwrap_err();
    assert!(matches!(error, Error::PoolFull { needed: 128, free: 64, capacity: 128 }), "{error}");
    assert!(error.to_string().contains("needs room for 128 tokens"), "{error}");
    assert_eq!(state(&pool), before);
    extend(&mut pool, b, &token_ids(0, 1)).unwrap();
}

#[test]
fn a_pass_without_commit_leaves_everything_as_it_was() {
    let mut pool = pool(4, KvDtype::Int8);
    let a = pool.add();
    extend(&mut pool, a, &token_ids(0, 60)).unwrap();
    let mut batch = Batch::new();
    batch.push(a, &token_ids(900, 100)).unwrap();
    forward(&mut pool, &batch).unwrap();
    assert_eq!((pool.len(a), pool.used_pages()), (60, 3));
    pool.rollback();
    assert_eq!(pool.used_pages(), 1);
    assert_holds(&pool, a, &token_ids(0, 60));
    assert!(pool.commit(&batch).unwrap_err().to_string().contains("`batch` is one that has not begun"));
    let keys = vectors(batch.tokens(), 0, 0);
    assert!(pool.append(0, &batch, &keys, &keys).is_err());
}

#[test]
fn names_of_removed_sequences_name_nothing() {
    let mut pool = pool(2, KvDtype::F32);
    let a = pool.add();
    extend(&mut pool, a, &[1]).unwrap();
    pool.remove(a);
    let b = pool.add();
    assert_ne!(a, b);
    assert!(!pool.contains(a) && pool.contains(b));
    let mut batch = Batch::new();
    batch.push(a, &[1]).unwrap();
    for error in [pool.begin(&batch).err(), pool.fork(a, 0).err(), pool.gather(0, a, 0).err()] {
        assert!(error.is_some_and(|error| error.to_string().contains("none of this pool")));
    }
    let error = pool.fork(b, 1).unwrap_err().to_string();
    assert_eq!(error, "fork: `len` is 1, expected up to 0, the tokens held");
    let elsewhere = KvPool::scratch(HEADS, E).begin(&batch).unwrap_err().to_string();
    assert!(elsewhere.contains("none of this pool"), "{elsewhere}");
}

#[test]
fn documents_go_on_across_passes_and_restart_positions() {
    let mut pool = pool(8, KvDtype::F32);
    let a = pool.add();
    let run =
        |pool: &mut KvPool, id, tokens: usize, documents: Option<&[u32]>| -> Result<(Vec<u32>, Vec<u32>)> {
            let (mut batch, tokens) = (Batch::new(), token_ids(0, tokens));
            match documents {
                Some(documents) => batch.push_documents(id, &tokens, documents)?,
                None => batch.push(id, &tokens)?,
            }
            let positions = pool.positions(&batch)?;
            forward(pool, &batch)?;
            let first_keys = pool.first_keys(&batch, None)?;
            pool.commit(&batch)?;
            Ok((positions, first_keys))
        };
    assert_eq!(run(&mut pool, a, 4, Some(&[5, 5, 6, 6])).unwrap(), (vec![0, 1, 0, 1], vec![0, 0, 2, 2]));
    assert_eq!(run(&mut pool, a, 3, Some(&[6, 6, 7])).unwrap(), (vec![2, 3, 0], vec![2, 2, 6]));
    let fork = pool.fork(a, 3).unwrap();
    assert_eq!(run(&mut pool, a, 1, None).unwrap(), (vec![1], vec![6]), "the last document goes on");
    let error = run(&mut pool, a, 1, Some(&[6])).unwrap_err().to_string();
    assert!(error.contains("`documents` is 6 at token 8"), "{error}");
    assert_eq!(run(&mut pool, fork, 2, Some(&[6, 7])).unwrap(), (vec![1, 0], vec![2, 4]));
    pool.truncate(a, 2);
    assert_eq!(run(&mut pool, a, 1, Some(&[6])).unwrap(), (vec![0], vec![2]));
    let b = pool.add();
    assert_eq!(run(&mut pool, b, 2, None).unwrap(), (vec![0, 1], vec![0, 0]));
}

#[test]
fn views_of_a_fused_tensor_are_read_in_place_and_other_sizes_refused() {
    let mut pool = pool(2, KvDtype::F32);
    let a = pool.add();
    let mut batch = Batch::new();
    batch.push(a, &token_ids(3, 5)).unwrap();
    pool.begin(&batch).unwrap();
    let [keys, values] = [0, 1].map(|half| vectors(batch.tokens(), 0, half));
    let fused = Tensor::cat(&[&keys, &keys, &values], 1).unwrap();
    let part = |from| fused.narrow(1, from, HEADS).unwrap();
    pool.append(0, &batch, &part(HEADS), &part(2 * HEADS)).unwrap();
    pool.append(1, &batch, &vectors(batch.tokens(), 1, 0), &vectors(batch.tokens(), 1, 1)).unwrap();
    let error = pool.append(0, &batch, &keys.narrow(0, 0, 4).unwrap(), &values).unwrap_err().to_string();
    assert!(error.contains("append: `keys` is [4, 2, 4]") && error.contains("expected [5, 2, 4]"), "{error}");
    assert!(pool.append(2, &batch, &keys, &values).unwrap_err().to_string().contains("`layer` is 2"));
    pool.commit(&batch).unwrap();
    assert_holds(&pool, a, &token_ids(3, 5));
}

#[test]
fn bytes_are_those_of_whole_pages() {
    let bytes = |dtype| KvPool::bytes(&config(), 65, dtype);
    let (tokens, heads_of_layers) = (2 * PAGE, 2 * HEADS);
    // keys as they are, values filled up to 16 numbers
    let expected =
        [(E + 16) * 4, (E + 16) * 2, E + 16 + 2 * 4].map(|token| (token * tokens * heads_of_layers) as u64);
    assert_eq!(KvDtype::ALL.map(bytes), expected);
}

/// Resident bytes of this process.
#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("a process has a size");
    4096 * pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a count")
}

#[cfg(target_os = "linux")]
#[test]
fn capacity_costs_nothing_until_it_is_used() {
    let before = resident_bytes();
    let mut pool = KvPool::new(&config(), usize::MAX / 2, KvDtype::F32).expect("room");
    let a = pool.add();
    extend(&mut pool, a, &token_ids(0, 100)).unwrap();
    assert!(pool.total_pages() > 1 << 30);
    // tests beside this one use memory too, but not as much
    assert!(resident_bytes().saturating_sub(before) < 1 << 30);
}

#[test]
fn a_page_that_finds_no_memory_is_refused() {
    let mut config = config();
    config.head_dim = 1 << 50;
    let error = KvPool::new(&config, 64, KvDtype::F32).unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }), "{error}");
}
