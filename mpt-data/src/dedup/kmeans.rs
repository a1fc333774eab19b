//! Spherical k-means: documents grouped by the directions of their vectors.
//!
//! Sums are f64 in the order of documents, ties go to the first cluster, and the seed draws the initial centers. The result
//! does not depend on threads.

use rayon::prelude::*;

use crate::filter::ngrams::fmix64;

/// Vectors of unit length, `[documents, dim]`.
#[derive(Debug, Default)]
pub(crate) struct Embeddings {
    dim: usize,
    values: Vec<f32>,
}

/// Clusters of documents.
#[derive(Debug)]
pub(super) struct Clusters {
    /// Documents of each cluster, in order.
    pub(super) members: Vec<Vec<u32>>,
    /// Direction of each cluster, `[clusters, dim]`.
    centers: Embeddings,
}

impl Embeddings {
    /// Adds a vector, scaled to unit length; `false` for one of length 0 or of another dimension than those before.
    pub(crate) fn push(&mut self, vector: &[f32]) -> bool {
        let norm = dot(vector, vector).sqrt();
        if self.values.is_empty() {
            self.dim = vector.len();
        }
        if vector.len() != self.dim || !norm.is_finite() || norm == 0.0 {
            return false;
        }
        self.values.extend(vector.iter().map(|value| (f64::from(*value) / norm) as f32));
        true
    }

    /// Number of vectors.
    pub(crate) fn len(&self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Cosine of vectors `a` and `b`.
    pub(super) fn cosine(&self, a: u32, b: u32) -> f64 {
        dot(self.get(a as usize), self.get(b as usize))
    }

    /// Vector `at`, `[dim]`.
    pub(super) fn get(&self, at: usize) -> &[f32] {
        &self.values[at * self.dim..][..self.dim]
    }
}

impl Clusters {
    /// Cosine of a document and the direction of its cluster.
    pub(super) fn cosine_to_center(&self, cluster: usize, vectors: &Embeddings, document: u32) -> f64 {
        dot(self.centers.get(cluster), vectors.get(document as usize))
    }
}

/// Groups vectors into at most `count` clusters.
pub(super) fn cluster(vectors: &Embeddings, count: usize, iterations: usize, seed: u64) -> Clusters {
    let mut centers = initial_centers(vectors, count, seed);
    let mut nearest = Vec::new();
    for _ in 0..iterations {
        let now = assign(vectors, &centers);
        if now == nearest {
            break;
        }
        nearest = now;
        centers = directions(vectors, &members(&nearest, centers.len()), &centers);
    }
    // Members and directions must match, also where the last round still moved a document.
    let nearest = assign(vectors, &centers);
    Clusters { members: members(&nearest, centers.len()), centers }
}

/// Initial centers: documents drawn by the seed.
fn initial_centers(vectors: &Embeddings, count: usize, seed: u64) -> Embeddings {
    let mut order: Vec<_> =
        (0..vectors.len()).map(|at| (fmix64(fmix64(seed.wrapping_add(1)) ^ at as u64), at)).collect();
    order.sort_unstable();
    let drawn = order.into_iter().take(count.max(1)).flat_map(|(_, at)| vectors.get(at).iter().copied());
    Embeddings { dim: vectors.dim, values: drawn.collect() }
}

/// Nearest cluster of each document.
fn assign(vectors: &Embeddings, centers: &Embeddings) -> Vec<u32> {
    let nearest = |at: usize| {
        let vector = vectors.get(at);
        let cosines = (0..centers.len()).map(|center| (dot(centers.get(center), vector), center as u32));
        cosines.reduce(|best, next| if next.0 > best.0 { next } else { best }).map_or(0, |best| best.1)
    };
    (0..vectors.len()).into_par_iter().map(nearest).collect()
}

fn members(nearest: &[u32], count: usize) -> Vec<Vec<u32>> {
    let mut members = vec![Vec::new(); count];
    for (document, &cluster) in (0..).zip(nearest) {
        members[cluster as usize].push(document);
    }
    members
}

/// Mean direction of each cluster; its earlier direction where it has no members or they cancel out.
fn directions(vectors: &Embeddings, members: &[Vec<u32>], before: &Embeddings) -> Embeddings {
    let direction = |(cluster, members): (usize, &Vec<u32>)| {
        let mut sum = vec![0f64; vectors.dim];
        for &document in members {
            let vector = vectors.get(document as usize);
            sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        if norm < 1e-9 {
            return before.get(cluster).to_vec();
        }
        sum.into_iter().map(|value| (value / norm) as f32).collect()
    };
    let values: Vec<Vec<f32>> = members.par_iter().enumerate().map(direction).collect();
    Embeddings { dim: vectors.dim, values: values.concat() }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0f64; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest = a4.remainder().iter().zip(b4.remainder()).map(|(a, b)| f64::from(*a) * f64::from(*b));
    let rest: f64 = rest.sum();
    for (a, b) in a4.zip(b4) {
        for lane in 0..4 {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Vectors around `centers` directions, by turns.
    pub(crate) fn around(count: usize, centers: usize, dim: usize, spread: f64) -> Embeddings {
        let uniform =
            |key: u64| fmix64(key.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1) as f64 / 2f64.powi(63) - 1.0;
        let mut vectors = Embeddings::default();
        for at in 0..count {
            let value = |axis: usize| {
                let center = uniform((at % centers * 1000 + axis) as u64);
                (center + spread * uniform((1_000_000 + at * 1000 + axis) as u64)) as f32
            };
            assert!(vectors.push(&(0..dim).map(value).collect::<Vec<_>>()));
        }
        vectors
    }

    #[test]
    fn directions_that_are_apart_are_clusters() {
        let vectors = around(300, 3, 16, 0.1);
        let clusters = cluster(&vectors, 12, 50, 1);
        for members in &clusters.members {
            assert!(members.iter().all(|document| document % 3 == members[0] % 3));
        }
        assert_eq!(clusters.members.iter().map(Vec::len).sum::<usize>(), 300);
    }

    #[test]
    fn only_directions_count() {
        let mut vectors = Embeddings::default();
        assert!(vectors.push(&[3.0, 4.0, 0.0, 0.0, 0.0]) && vectors.push(&[0.3, 0.4, 0.0, 0.0, 0.0]));
        assert!((vectors.cosine(0, 1) - 1.0).abs() < 1e-6);
        assert!(!vectors.push(&[0.0; 5]) && !vectors.push(&[f32::NAN; 5]) && !vectors.push(&[1.0; 4]));
        assert_eq!(vectors.len(), 2);
    }
}
