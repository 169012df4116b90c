//! What is wrong with a configuration: all of it at once, a line each.

use std::fmt;

use super::reader::Origin;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A key's path, or the name of the variable that matches none.
    pub key: String,
    pub origin: Option<Origin>,
    pub message: String,
}

impl Problem {
    pub(super) fn unknown<'a>(
        key: &str,
        origin: Option<Origin>,
        known: impl Iterator<Item = &'a str>,
    ) -> Self {
        let nearest =
            known.map(|name| (distance(key, name), name)).min().filter(|(distance, _)| *distance <= 3);
        let message = match nearest {
            Some((_, name)) => format!("unknown; did you mean {name}?"),
            None => "unknown".to_owned(),
        };
        Self { key: key.to_owned(), origin, message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} (from {origin}): {}", self.key, self.message),
            None => write!(f, "{}: {}", self.key, self.message),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, key: &str, origin: Option<Origin>, message: impl Into<String>) {
        self.0.push(Problem { key: key.to_owned(), origin, message: message.into() });
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is refused:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// Levenshtein's: how many letters to change, add or leave out.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("port", "port"), 0);
        assert_eq!(distance("prot", "port"), 2);
        assert_eq!(distance("", "port"), 4);
    }
}
