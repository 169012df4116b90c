//! Measuring on a machine that others use too: what is compared takes turns, in short rounds, and
//! the median of its rounds counts.

use crate::cpu::Pace;

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(mut figures: Vec<f64>) -> f64 {
    assert!(!figures.is_empty(), "nothing was measured");
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 }
}

/// What each contestant reached in each round.
pub struct Rounds {
    names: Vec<String>,
    figures: Vec<Vec<f64>>,
}

impl Rounds {
    pub fn new() -> Self {
        Self { names: Vec::new(), figures: Vec::new() }
    }

    pub fn record(&mut self, name: &str, figure: f64) {
        let at = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.figures.push(Vec::new());
            self.names.len() - 1
        });
        self.figures[at].push(figure);
    }

    pub fn pace(&mut self, name: &str, pace: Pace) {
        self.record(name, pace.rate);
        self.record(&format!("{name} own"), pace.own);
        self.record(&format!("{name} server"), pace.server);
    }

    /// # Panics
    /// When nothing was recorded under the name: a mistake in the benchmark.
    pub fn median(&self, name: &str) -> f64 {
        let at = self.names.iter().position(|known| known == name);
        median(self.figures[at.unwrap_or_else(|| panic!("nothing was recorded for {name}"))].clone())
    }
}
