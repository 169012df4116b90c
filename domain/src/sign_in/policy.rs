//! What a password may be.

use std::{collections::HashSet, sync::LazyLock};

pub const SHORTEST: usize = 8;
pub const LONGEST: usize = 128;

/// Passwords that are tried first, from lists that leaked; those that are too short anyway are left out.
static COMMON: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// What is wrong with a password for somebody of these names, to be said to whoever chose it.
pub fn fault(password: &str, names: &[&str]) -> Option<&'static str> {
    let length = password.chars().count();
    if length < SHORTEST {
        return Some("has fewer than 8 characters");
    }
    if length > LONGEST {
        return Some("has more than 128 characters");
    }
    let lower = password.to_lowercase();
    if COMMON.contains(lower.as_str()) || is_one_character(&lower) {
        return Some("is one of the first that somebody would guess");
    }
    if names.iter().any(|name| !name.is_empty() && name.to_lowercase() == lower) {
        return Some("is the name of its owner");
    }
    None
}

fn is_one_character(text: &str) -> bool {
    let mut characters = text.chars();
    let first = characters.next();
    characters.all(|c| Some(c) == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guessed_first_is_refused() {
        let names = ["ada.lovelace@example.org", "ada.lovelace"];
        for bad in [
            "short",
            "password1",
            "Password1",
            "qwertyuiop",
            "zzzzzzzzzzzz",
            "Ada.Lovelace",
            "ada.lovelace@example.org",
            &"x".repeat(129),
        ] {
            assert!(fault(bad, &names).is_some(), "{bad:?}");
        }
        for good in ["correct horse battery staple", "größere Äpfel", "\u{1f600}12345 7", &"ab".repeat(64)]
        {
            assert_eq!(fault(good, &names), None, "{good:?}");
        }
    }
}
