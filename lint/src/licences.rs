//! Every crate's licence expression has to be satisfied by licences that we accept.

use serde::Deserialize;

use crate::graph::Graph;

#[derive(Deserialize)]
pub struct Rules {
    allow: Vec<String>,
}

pub fn check(graph: &Graph, rules: &Rules) -> Vec<String> {
    let refused = graph.packages.iter().filter_map(|package| {
        let expression = package.license.as_deref().unwrap_or("none");
        let accepted =
            is_accepted(expression, &|licence| rules.allow.iter().any(|allowed| allowed == licence));
        (!accepted).then(|| format!("licence of {} {}: {expression}", package.name, package.version))
    });
    refused.collect()
}

/// SPDX: AND binds closer than OR; the slash is an old way to write OR. What cannot be read is not accepted.
fn is_accepted(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut tokens: Vec<&str> = spaced.split_whitespace().rev().collect();
    any(&mut tokens, allowed) == Some(true) && tokens.is_empty()
}

fn any(tokens: &mut Vec<&str>, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut accepted = all(tokens, allowed)?;
    while tokens.pop_if(|token| *token == "OR").is_some() {
        accepted |= all(tokens, allowed)?;
    }
    Some(accepted)
}

fn all(tokens: &mut Vec<&str>, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut accepted = one(tokens, allowed)?;
    while tokens.pop_if(|token| *token == "AND").is_some() {
        accepted &= one(tokens, allowed)?;
    }
    Some(accepted)
}

fn one(tokens: &mut Vec<&str>, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let first = tokens.pop()?;
    if first == "(" {
        let inner = any(tokens, allowed)?;
        return (tokens.pop()? == ")").then_some(inner);
    }
    if tokens.pop_if(|token| *token == "WITH").is_some() {
        return Some(allowed(&format!("{first} WITH {}", tokens.pop()?)));
    }
    Some(allowed(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_means_them() {
        let allowed = |licence: &str| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&licence);
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/GPL-3.0",
            "(GPL-3.0 OR MIT) AND ISC",
            "Apache-2.0 WITH LLVM-exception",
            "GPL-3.0 AND X OR MIT",
        ] {
            assert!(is_accepted(good, &allowed), "{good}");
        }
        for bad in
            ["GPL-3.0", "MIT AND GPL-3.0", "MIT OR", "(MIT", "MIT MIT", "", "(MIT OR ISC) AND Apache-2.0"]
        {
            assert!(!is_accepted(bad, &allowed), "{bad}");
        }
    }
}
