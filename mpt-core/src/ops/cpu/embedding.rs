//! Rows of tables on the processor.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::host::{change_in_place, host_slice};
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
                table.widen_rows(id as usize..id as usize + 1, row);
            }
        }
    }
    Ok(Tensor::from_vec(rows, (ids.len(), d), &candle_core::Device::Cpu)?)
}

pub(crate) fn embedding_backward(d_table: &Tensor, ids: &[u32], d_rows: &Tensor) -> Result<()> {
    let (_, d) = d_table.dims2()?;
    let d_rows = host_slice(d_rows)?;
    let d_rows: &[f32] = &d_rows;
    let mut places: Vec<usize> = (0..ids.len()).collect();
    places.sort_by_key(|&place| ids[place]); // stable: the places of one id stay in order
    let groups: Vec<&[usize]> = places.chunk_by(|&a, &b| ids[a] == ids[b]).collect();
    let sum = |places: &&[usize]| {
        let mut sum = vec![0f32; d];
        for place in *places {
            sum.iter_mut().zip(&d_rows[place * d..][..d]).for_each(|(sum, value)| *sum += value);
        }
        (ids[places[0]] as usize, sum)
    };
    let sums: Vec<(usize, Vec<f32>)> = groups.par_iter().with_min_len(16).map(sum).collect();
    change_in_place(d_table, |d_table| {
        for (id, sum) in &sums {
            let row = &mut d_table[id * d..][..d];
            row.iter_mut().zip(sum).for_each(|(row, sum)| *row += sum);
        }
    })
}
