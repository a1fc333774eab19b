//! Keys and values of tokens already seen, owned by the caller.
//!
//! Each of a layer's two halves lies `[batch, kv_n_heads, capacity, head_dim]`, so that decoding reads a head's keys from
//! one end to the other. Capacity costs nothing until it is used: the system gives a page when it is first written.

use std::ops::Range;

use candle_core::{Device, Tensor};
use memmap2::MmapMut;

use crate::config::MptConfig;
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::cached::{Cached, Vectors};
use crate::kernels::cpu::attention::paged::{narrow_bf16, narrow_int8};
use crate::kv_dtype::KvDtype;
use crate::ops::host_slice;

/// Keys and values of a batch of sequences, with room set aside once; each row has its own length.
///
/// Unequal prompts are padded on the right ([`AttnMask::padded`](crate::AttnMask::padded)), run together and cut back
/// with [`KvCache::truncate`].
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerStore>,
    sizes: Sizes,
    lens: Vec<usize>,
}

/// What both halves of every layer have in common.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    dtype: KvDtype,
    batch: usize,
    kv_n_heads: usize,
    capacity: usize,
    head_dim: usize,
}

#[derive(Debug)]
struct LayerStore {
    keys: Store,
    values: Store,
}

/// Vectors `[batch, kv_n_heads, capacity]` of `head_dim` numbers; pages that were never written hold zeros.
#[derive(Debug)]
struct Store {
    numbers: MmapMut,
    /// One f32 a vector, or nothing.
    scales: MmapMut,
}

/// One layer's part of a [`KvCache`] during a forward pass.
#[derive(Debug)]
pub struct LayerCache<'a> {
    store: &'a mut LayerStore,
    sizes: Sizes,
    lens: &'a [usize],
}

impl KvCache {
    /// An empty cache for `batch` sequences of up to `capacity` tokens.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the system has none.
    pub fn new(config: &MptConfig, batch: usize, capacity: usize, dtype: KvDtype) -> Result<Self> {
        let kv_n_heads = config.attn_config.kv_n_heads;
        let sizes = Sizes { dtype, batch, kv_n_heads, capacity, head_dim: config.head_dim };
        Ok(Self { layers: sizes.layers(config.n_layers)?, sizes, lens: vec![0; batch] })
    }

    /// Tokens held for `row`.
    pub fn len(&self, row: usize) -> usize {
        self.lens[row]
    }

    /// Whether no row holds a token.
    pub fn is_empty(&self) -> bool {
        self.lens.iter().all(|&len| len == 0)
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.lens.len()
    }

    /// Tokens that fit a row.
    pub fn capacity(&self) -> usize {
        self.sizes.capacity
    }

    /// How numbers are held.
    pub fn dtype(&self) -> KvDtype {
        self.sizes.dtype
    }

    /// Forgets all but the first `len` tokens of `row`; does nothing when it holds fewer.
    pub fn truncate(&mut self, row: usize, len: usize) {
        self.lens[row] = self.lens[row].min(len);
    }

    /// Makes room for `capacity` tokens a row, keeping those held; does nothing when there is as much.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the system has none; the cache is then as it was.
    pub fn grow(&mut self, capacity: usize) -> Result<()> {
        if capacity <= self.sizes.capacity {
            return Ok(());
        }
        let sizes = Sizes { capacity, ..self.sizes };
        let larger = sizes.layers(self.layers.len())?;
        for (held, larger) in self.layers.iter_mut().zip(larger) {
            for (held, mut larger) in [(&mut held.keys, larger.keys), (&mut held.values, larger.values)] {
                let (number, scale) =
                    (sizes.dtype.number_bytes() * sizes.head_dim, sizes.dtype.scale_bytes());
                for (row, &len) in self.lens.iter().enumerate() {
                    for head in row * sizes.kv_n_heads..(row + 1) * sizes.kv_n_heads {
                        let (from, to) = (head * self.sizes.capacity, head * capacity);
                        copy(&held.numbers, &mut larger.numbers, [from, to, len].map(|n| n * number));
                        copy(&held.scales, &mut larger.scales, [from, to, len].map(|n| n * scale));
                    }
                }
                *held = larger;
            }
        }
        self.sizes = sizes;
        Ok(())
    }

    /// Bytes of a cache of these sizes, once it is full.
    pub fn bytes(config: &MptConfig, batch: usize, capacity: usize, dtype: KvDtype) -> u64 {
        let per_token =
            2 * config.n_layers * config.attn_config.kv_n_heads * dtype.vector_bytes(config.head_dim);
        (per_token as u64).saturating_mul(batch as u64).saturating_mul(capacity as u64)
    }

    /// Tokens held for each row.
    pub fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// One layer's part, for a forward pass; it begins behind the tokens held.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn layer(&mut self, layer: usize) -> LayerCache<'_> {
        LayerCache { store: &mut self.layers[layer], sizes: self.sizes, lens: &self.lens }
    }

    pub(crate) fn expect_room(&self, batch: usize, seq: usize) -> Result<()> {
        if batch != self.batch() {
            let (actual, expected) =
                (format!("{batch} rows"), format!("{}, the rows of the cache", self.batch()));
            return Err(Error::Shape { op: "cached forward pass", argument: "tokens", actual, expected });
        }
        let needed = self.lens.iter().max().map_or(0, |longest| longest + seq);
        if needed > self.capacity() {
            let limit = format!("a cache of {} tokens", self.capacity());
            return Err(Error::TooLong {
                actual: needed,
                limit,
                instead: "allocate a larger one or truncate it",
            });
        }
        Ok(())
    }

    /// Counts `seq` more tokens of each row as held, once every layer has them.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn advance(&mut self, seq: usize) {
        self.lens.iter_mut().for_each(|len| *len += seq);
        assert!(self.lens.iter().all(|&len| len <= self.sizes.capacity), "a row is longer than its cache");
    }
}

/// Copies `len` bytes from one place to another; a form without scales has none to copy.
fn copy(held: &[u8], larger: &mut [u8], [from, to, len]: [usize; 3]) {
    larger[to..to + len].copy_from_slice(&held[from..from + len]);
}

impl Sizes {
    fn vectors(self) -> usize {
        self.batch.saturating_mul(self.kv_n_heads).saturating_mul(self.capacity)
    }

    fn layers(self, n: usize) -> Result<Vec<LayerStore>> {
        let store = || -> std::io::Result<Store> {
            let number = self.dtype.number_bytes() * self.head_dim;
            Ok(Store {
                numbers: MmapMut::map_anon(self.vectors().saturating_mul(number))?,
                scales: MmapMut::map_anon(self.vectors().saturating_mul(self.dtype.scale_bytes()))?,
            })
        };
        let layers = (0..n).map(|_| Ok(LayerStore { keys: store()?, values: store()? }));
        layers.collect::<std::io::Result<_>>().map_err(|source| {
            let per_vector = 2 * n * self.dtype.vector_bytes(self.head_dim);
            Error::NoRoom { bytes: (self.vectors() as u64).saturating_mul(per_vector as u64), source }
        })
    }
}

impl Store {
    fn cached(&self, sizes: Sizes) -> Cached<'_> {
        let vectors = match sizes.dtype {
            KvDtype::F32 => Vectors::F32(bytemuck::cast_slice(&self.numbers)),
            KvDtype::Bf16 => Vectors::Bf16(bytemuck::cast_slice(&self.numbers)),
            KvDtype::Int8 => Vectors::Int8 {
                values: bytemuck::cast_slice(&self.numbers),
                scales: bytemuck::cast_slice(&self.scales),
            },
        };
        Cached { vectors, kv_n_heads: sizes.kv_n_heads, capacity: sizes.capacity }
    }

    /// Writes vector `at`.
    fn write(&mut self, dtype: KvDtype, at: usize, vector: &[f32]) {
        let numbers = at * vector.len()..(at + 1) * vector.len();
        match dtype {
            KvDtype::F32 => {
                bytemuck::cast_slice_mut::<u8, f32>(&mut self.numbers)[numbers].copy_from_slice(vector);
            }
            KvDtype::Bf16 => narrow_bf16(vector, &mut bytemuck::cast_slice_mut(&mut self.numbers)[numbers]),
            KvDtype::Int8 => {
                let values = &mut bytemuck::cast_slice_mut(&mut self.numbers)[numbers];
                bytemuck::cast_slice_mut::<u8, f32>(&mut self.scales)[at] = narrow_int8(vector, values);
            }
        }
    }
}

impl LayerCache<'_> {
    /// Writes new keys and values `[batch, seq, kv_n_heads, head_dim]`, f32, behind each row's own.
    ///
    /// # Errors
    /// [`Error::Shape`] when they are not of these sizes or do not fit.
    pub fn append(&mut self, keys: &Tensor, values: &Tensor) -> Result<()> {
        let Sizes { dtype, batch, kv_n_heads, capacity, head_dim } = self.sizes;
        let stores = [(&mut self.store.keys, keys, "keys"), (&mut self.store.values, values, "values")];
        for (store, new, argument) in stores {
            let (rows, seq, heads, e) = new.dims4()?;
            let longest = self.lens.iter().max().copied().unwrap_or(0);
            if [rows, heads, e] != [batch, kv_n_heads, head_dim] || longest + seq > capacity {
                let expected = format!("[{batch}, up to {}, {kv_n_heads}, {head_dim}]", capacity - longest);
                let actual = format!("{:?}", new.dims());
                return Err(Error::Shape { op: "cache", argument, actual, expected });
            }
            let new = new.contiguous()?;
            let new = host_slice(&new)?;
            for (index, vector) in new.chunks_exact(head_dim).enumerate() {
                let (token, head) = (index / kv_n_heads, index % kv_n_heads);
                let (row, position) = (token / seq, token % seq);
                let at = (row * kv_n_heads + head) * capacity + self.lens[row] + position;
                store.write(dtype, at, vector);
            }
        }
        Ok(())
    }

    /// Tokens held for each row before this forward pass.
    pub fn lens(&self) -> &[usize] {
        self.lens
    }

    pub(crate) fn kv_n_heads(&self) -> usize {
        self.sizes.kv_n_heads
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.sizes.head_dim
    }

    pub(crate) fn capacity(&self) -> usize {
        self.sizes.capacity
    }

    /// Keys and values as kernels take them.
    pub(crate) fn cached(&self) -> [Cached<'_>; 2] {
        [&self.store.keys, &self.store.values].map(|store| store.cached(self.sizes))
    }

    /// All keys and values, with `seq` new tokens, as f32 `[batch, tokens of the longest row, kv_n_heads, head_dim]`; those beyond
    /// a row's length hold no meaning.
    pub(crate) fn tensors(&self, seq: usize) -> Result<(Tensor, Tensor)> {
        let tokens = 0..self.lens.iter().max().map_or(0, |longest| longest + seq);
        let [keys, values] = self.cached().map(|cached| self.tensor(cached, tokens.clone()));
        Ok((keys?, values?))
    }

    fn tensor(&self, cached: Cached<'_>, tokens: Range<usize>) -> Result<Tensor> {
        let Sizes { batch, kv_n_heads, head_dim, .. } = self.sizes;
        let mut wide = vec![0f32; batch * kv_n_heads * tokens.len() * head_dim];
        for (index, wide) in wide.chunks_exact_mut((tokens.len() * head_dim).max(1)).enumerate() {
            let (row, head) = (index / kv_n_heads, index % kv_n_heads);
            cached.of_head(row, head, tokens.clone(), head_dim).widen(head_dim, wide);
        }
        let by_head = (batch, kv_n_heads, tokens.len(), head_dim);
        Ok(Tensor::from_vec(wide, by_head, &Device::Cpu)?.transpose(1, 2)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use candle_core::IndexOp;

    fn config() -> MptConfig {
        let mut config = MptConfig::mpt(64, 2, 4, 8, 8).expect("possible sizes");
        config.attn_config.kv_n_heads = 2;
        config
    }

    /// What each layer holds of each row: keys and values of its tokens.
    fn held(cache: &mut KvCache) -> Vec<Vec<Vec<Vec<f32>>>> {
        let lens = cache.lens().to_vec();
        let mut rows = Vec::new();
        for layer in 0..2 {
            let (keys, values) = cache.layer(layer).tensors(0).expect("tensors");
            for (row, &len) in lens.iter().enumerate() {
                for x in [&keys, &values] {
                    rows.push(x.i((row, ..len)).and_then(|x| x.contiguous()?.to_vec3()).expect("f32"));
                }
            }
        }
        rows
    }

    fn append(cache: &mut KvCache, tokens: usize, seed: u64) {
        for layer in 0..2 {
            let new = |seed| random(&[3, tokens, 2, 16], seed);
            let (keys, values) = (new(seed + layer as u64), new(seed + 10 + layer as u64));
            cache.layer(layer).append(&keys, &values).expect("room");
        }
        cache.advance(tokens);
    }

    #[test]
    fn growing_keeps_what_is_held_and_truncating_forgets_it() {
        for dtype in KvDtype::ALL {
            let mut cache = KvCache::new(&config(), 3, 9, dtype).expect("room");
            append(&mut cache, 7, 1);
            cache.truncate(1, 4);
            cache.truncate(2, 0);
            let before = held(&mut cache);
            cache.grow(40).expect("room");
            assert_eq!((cache.capacity(), cache.lens()), (40, &[7, 4, 0][..]));
            assert_eq!(held(&mut cache), before, "{dtype}");
            append(&mut cache, 20, 30);
            let grown = held(&mut cache);
            for (before, grown) in before.iter().zip(&grown) {
                assert_eq!(before[..], grown[..before.len()], "{dtype}");
            }
            cache.truncate(0, 7);
            cache.truncate(1, 4);
            cache.truncate(2, 0);
            assert_eq!(held(&mut cache), before, "{dtype}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut cache = KvCache::new(&config(), 3, 9, KvDtype::Int8).expect("room");
        append(&mut cache, 7, 1);
        let new = random(&[3, 3, 2, 16], 1);
        let error = cache.layer(0).append(&new, &new).unwrap_err().to_string();
        assert_eq!(error, "cache: `keys` is [3, 3, 2, 16], expected [3, up to 2, 2, 16]");
        let error = KvCache::new(&config(), 3, usize::MAX / 64, KvDtype::F32).unwrap_err();
        assert!(matches!(error, Error::NoRoom { .. }), "{error}");
        assert!(cache.grow(usize::MAX / 64).is_err());
        assert_eq!(cache.capacity(), 9);
    }

    #[test]
    fn sizes_are_those_of_the_form() {
        let bytes = |dtype| KvCache::bytes(&config(), 3, 9, dtype);
        let vectors = 2 * 2 * 2 * 3 * 9; // halves, layers, heads, rows, tokens
        assert_eq!(KvDtype::ALL.map(bytes), [64, 32, 16 + 4].map(|vector| vectors * vector));
    }

    /// Pages of this process that are in memory.
    #[cfg(target_os = "linux")]
    fn resident_bytes() -> u64 {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("a process has a size");
        4096 * pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a count")
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn capacity_costs_nothing_until_it_is_used() {
        let before = resident_bytes();
        let mut cache = KvCache::new(&config(), 3, 1 << 22, KvDtype::F32).expect("room"); // 6 GiB
        append(&mut cache, 7, 1);
        cache.grow((1 << 22) + 1).expect("room");
        // tests beside this one use memory too, but not as much
        assert!(resident_bytes().saturating_sub(before) < 1 << 30);
    }
}
