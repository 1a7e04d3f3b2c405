//! Data for the benchmarks: the same every time, from small generators.

pub mod citylots;
pub mod s3;

/// A linear congruential generator; good enough for test data.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.0 >> 33
    }

    /// A whole number below `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    /// A number in 0..1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() << 22 | self.next() & 0x3F_FFFF) as f64 / (1_u64 << 53) as f64
    }

    /// A number in low..high.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.fraction()
    }

    pub fn pick<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// An index, as likely as its weight.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (i, weight) in weights.iter().enumerate() {
            if left < *weight {
                return i;
            }
            left -= weight;
        }
        weights.len() - 1
    }
}
