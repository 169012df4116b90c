//! What a provider says of a person.

use serde_json::{Map, Value};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// `None` when the text is no JSON object.
    pub fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().map(Self)
    }

    /// Who it is at the provider; the standard bounds it.
    pub fn subject(&self) -> Option<&str> {
        self.text("sub").filter(|sub| (1..=255).contains(&sub.len()) && !sub.chars().any(char::is_control))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.trim().is_empty())
    }

    /// A list of texts, or one text.
    pub fn list(&self, name: &str) -> Option<Vec<&str>> {
        match self.0.get(name)? {
            Value::String(one) => Some(vec![one]),
            Value::Array(many) => Some(many.iter().filter_map(Value::as_str).collect()),
            _ => None,
        }
    }

    /// A moment, in seconds since 1970; some providers write fractions.
    pub fn seconds(&self, name: &str) -> Option<i64> {
        let number = self.0.get(name)?;
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and such a moment is refused")]
        number.as_i64().or_else(|| number.as_f64().map(|fraction| fraction as i64))
    }

    /// Some providers write it as text.
    pub fn is_true(&self, name: &str) -> bool {
        match self.0.get(name) {
            Some(Value::Bool(value)) => *value,
            Some(Value::String(text)) => text == "true",
            _ => false,
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the claim is kept somewhere else, as when somebody is in too many groups for a token.
    pub fn is_elsewhere(&self, name: &str) -> bool {
        self.0.get("_claim_names").and_then(|names| names.get(name)).is_some()
    }

    /// With what user information adds; what the signed token says stands. That an address is
    /// verified is said of the address beside it and no other.
    pub fn completed_by(mut self, info: Self) -> Self {
        let same_address = !self.has("email") || self.0.get("email") == info.0.get("email");
        for (name, value) in info.0 {
            if name != "email_verified" || same_address {
                self.0.entry(name).or_insert(value);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        Claims::read(value.to_string().as_bytes()).expect("an object")
    }

    #[test]
    fn claims_are_read_in_the_forms_that_providers_use() {
        let claims = claims(&json!({
            "sub": "1", "groups": ["a", 7, "b"], "group": "a", "exp": 1.9, "iat": 2, "verified": "true", "blank": " ",
        }));
        assert_eq!(claims.subject(), Some("1"));
        assert_eq!(claims.list("groups"), Some(vec!["a", "b"]));
        assert_eq!(claims.list("group"), Some(vec!["a"]));
        assert_eq!((claims.seconds("exp"), claims.seconds("iat")), (Some(1), Some(2)));
        assert!(claims.is_true("verified") && !claims.is_true("sub") && !claims.is_true("absent"));
        assert_eq!(claims.text("blank"), None);
        assert_eq!(Claims::read(b"[1]"), None);
    }

    #[test]
    fn a_subject_has_the_standards_bounds() {
        for bad in [json!(""), json!("a".repeat(256)), json!("a\u{0}"), json!(7), json!(null)] {
            assert_eq!(claims(&json!({ "sub": bad })).subject(), None, "{bad}");
        }
    }

    #[test]
    fn what_is_signed_is_not_replaced() {
        let token = claims(&json!({ "sub": "1", "name": "Ada" }));
        let both = token.completed_by(claims(&json!({ "name": "Mallory", "groups": ["a"] })));
        assert_eq!((both.text("name"), both.list("groups")), (Some("Ada"), Some(vec!["a"])));
    }

    #[test]
    fn an_address_is_verified_by_what_is_said_of_itself_alone() {
        let signed = claims(&json!({ "email": "ada@example.org" }));
        let of_another = claims(&json!({ "email": "mallory@example.org", "email_verified": true }));
        let of_none = claims(&json!({ "email_verified": true }));
        let of_the_same = claims(&json!({ "email": "ada@example.org", "email_verified": true }));
        assert!(!signed.clone().completed_by(of_another.clone()).is_true("email_verified"));
        assert!(!signed.clone().completed_by(of_none).is_true("email_verified"));
        assert!(signed.completed_by(of_the_same).is_true("email_verified"));
        assert!(Claims::default().completed_by(of_another).is_true("email_verified"));
    }

    #[test]
    fn too_many_groups_are_noticed() {
        let full = claims(&json!({ "_claim_names": { "groups": "src1" }, "_claim_sources": {} }));
        assert!(full.is_elsewhere("groups") && !full.is_elsewhere("email"));
    }
}
