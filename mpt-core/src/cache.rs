//! Keys and values of tokens already seen, owned by the caller.

use candle_core::{DType, Device, Tensor};

use crate::config::MptConfig;
use crate::error::{Error, Result};

/// Keys and values of a batch of sequences, allocated once; each row has its own length.
///
/// Unequal prompts are padded on the right ([`AttnMask::padded`](crate::AttnMask::padded)), run together and cut back
/// with [`KvCache::truncate`].
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerTensors>,
    lens: Vec<usize>,
    capacity: usize,
}

#[derive(Debug)]
struct LayerTensors {
    /// `[batch, capacity, kv_n_heads, head_dim]`
    keys: Tensor,
    values: Tensor,
}

/// One layer's part of a [`KvCache`] during a forward pass.
#[derive(Clone, Copy, Debug)]
pub struct LayerCache<'a> {
    tensors: &'a LayerTensors,
    lens: &'a [usize],
}

impl KvCache {
    /// An empty cache for `batch` sequences of up to `capacity` tokens.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn new(
        config: &MptConfig,
        batch: usize,
        capacity: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let shape = (batch, capacity, config.attn_config.kv_n_heads, config.head_dim);
        let layers = (0..config.n_layers)
            .map(|_| {
                let zeros = || Tensor::zeros(shape, dtype, device);
                Ok(LayerTensors { keys: zeros()?, values: zeros()? })
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers, lens: vec![0; batch], capacity })
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
        self.capacity
    }

    /// Forgets all but the first `len` tokens of `row`; does nothing when it holds fewer.
    pub fn truncate(&mut self, row: usize, len: usize) {
        self.lens[row] = self.lens[row].min(len);
    }

    /// Makes room for `capacity` tokens a row, keeping those held; does nothing when there is as much.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn grow(&mut self, capacity: usize) -> Result<()> {
        if capacity <= self.capacity {
            return Ok(());
        }
        for layer in &mut self.layers {
            for held in [&mut layer.keys, &mut layer.values] {
                let (batch, _, heads, head_dim) = held.dims4()?;
                let larger = Tensor::zeros((batch, capacity, heads, head_dim), held.dtype(), held.device())?;
                for row in 0..batch {
                    larger.narrow(0, row, 1)?.slice_set(&held.narrow(0, row, 1)?.contiguous()?, 1, 0)?;
                }
                *held = larger;
            }
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Bytes of a cache of these sizes.
    pub fn bytes(config: &MptConfig, batch: usize, capacity: usize, dtype: DType) -> u64 {
        let per_token =
            2 * config.n_layers * config.attn_config.kv_n_heads * config.head_dim * dtype.size_in_bytes();
        (per_token as u64).saturating_mul(batch as u64).saturating_mul(capacity as u64)
    }

    pub(crate) fn lens(&self) -> &[usize] {
        &self.lens
    }

    pub(crate) fn layer(&self, layer: usize) -> LayerCache<'_> {
        LayerCache { tensors: &self.layers[layer], lens: &self.lens }
    }

    pub(crate) fn expect_room(&self, batch: usize, seq: usize) -> Result<()> {
        if batch != self.batch() {
            let (actual, expected) =
                (format!("{batch} rows"), format!("{}, the rows of the cache", self.batch()));
            return Err(Error::Shape { op: "cached forward pass", argument: "tokens", actual, expected });
        }
        let needed = self.lens.iter().max().map_or(0, |longest| longest + seq);
        if needed > self.capacity {
            let limit = format!("a cache of {} tokens", self.capacity);
            return Err(Error::TooLong {
                actual: needed,
                limit,
                instead: "allocate a larger one or truncate it",
            });
        }
        Ok(())
    }

    pub(crate) fn advance(&mut self, seq: usize) {
        self.lens.iter_mut().for_each(|len| *len += seq);
    }
}

impl LayerCache<'_> {
    /// Writes new keys and values `[batch, seq, kv_n_heads, head_dim]` behind each row's own and returns all
    /// `[batch, capacity, kv_n_heads, head_dim]`; positions beyond a row's length hold no meaning.
    pub(crate) fn append(&self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        for (row, &len) in self.lens.iter().enumerate() {
            for (all, new) in [(&self.tensors.keys, keys), (&self.tensors.values, values)] {
                all.narrow(0, row, 1)?.slice_set(&new.narrow(0, row, 1)?.contiguous()?, 1, len)?;
            }
        }
        Ok((self.tensors.keys.clone(), self.tensors.values.clone()))
    }

    /// Tokens held for each row before this forward pass.
    pub fn lens(&self) -> &[usize] {
        self.lens
    }
}
