//! CPU embedding.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::host::{host_slice, with_slice_mut};
use crate::parameter::Parameter;

pub(crate) fn embedding(table: &Parameter, ids: &[u32]) -> Result<Tensor> {
    let &[_, d] = table.dims() else { unreachable!("checked by `embedding`") };
    let mut rows = vec![0f32; ids.len() * d];
    match table {
        Parameter::Tensor(table) => {
            let table = table.contiguous()?;
            let table = host_slice(&table)?;
            for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(d)) {
                row.copy_from_slice(&table[id as usize * d..][..d]);
            }
        }
        Parameter::Stored(table) => {
            for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(d)) {
                table.dequantize_rows(id as usize..id as usize + 1, row);
            }
        }
    }
    Ok(Tensor::from_vec(rows, (ids.len(), d), &candle_core::Device::Cpu)?)
}

pub(crate) fn embedding_backward(d_table: &Tensor, ids: &[u32], d_rows: &Tensor) -> Result<()> {
    let (_, d) = d_table.dims2()?;
    let d_rows = host_slice(d_rows)?;
    let d_rows: &[f32] = &d_rows;
    let mut positions: Vec<usize> = (0..ids.len()).collect();
    positions.sort_by_key(|&position| ids[position]); // stable: the positions of one id stay in order
    let groups: Vec<&[usize]> = positions.chunk_by(|&a, &b| ids[a] == ids[b]).collect();
    let sum = |positions: &&[usize]| {
        let mut sum = vec![0f32; d];
        for position in *positions {
            sum.iter_mut().zip(&d_rows[position * d..][..d]).for_each(|(sum, value)| *sum += value);
        }
        (ids[positions[0]] as usize, sum)
    };
    let sums: Vec<(usize, Vec<f32>)> = groups.par_iter().with_min_len(16).map(sum).collect();
    with_slice_mut(d_table, |d_table| {
        for (id, sum) in &sums {
            let row = &mut d_table[id * d..][..d];
            row.iter_mut().zip(sum).for_each(|(row, sum)| *row += sum);
        }
    })
}
