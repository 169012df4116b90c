//! Secrets at rest: what is stored is encrypted under a master key that is not in the database.
//!
//! A `Sealed` value opens only in the place (table, column, row) that it was sealed for, so nobody
//! who can write to the database can move one tenant's secret to where another's is used.

mod master_key;

use ring::{
    aead::{Aad, NONCE_LEN, Nonce},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use thiserror::Error;
use uuid::Uuid;

use self::master_key::{KEY_ID_LEN, KeyId, MasterKey};
pub use self::master_key::{KeyFileError, MasterKeys};
use crate::secret::Secret;

/// What is stored: version, id of the key, nonce, ciphertext with its tag.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct Sealed(Vec<u8>);

const VERSION: u8 = 1;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN;

/// Where a sealed value lives.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub table: &'static str,
    pub column: &'static str,
    pub row: Uuid,
}

impl Place {
    /// Names hold no zero byte, so no two places have the same bytes.
    fn associated_data(self) -> Aad<Vec<u8>> {
        let names = [self.table.as_bytes(), &[0], self.column.as_bytes(), &[0]].concat();
        Aad::from([names.as_slice(), self.row.as_bytes()].concat())
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    #[error("the value was sealed under a key that is not in the master key file")]
    UnknownKey,
    #[error("the value is damaged, or was sealed for another place")]
    Damaged,
}

impl MasterKeys {
    /// Tells whether two values are the same, and to who has no master key nothing else: what may be short
    /// enough to be guessed is compared by this and not by its hash. The first mark is to be stored; while a
    /// rotation is under way, what was stored may be any of them.
    pub fn marks(&self, purpose: &str, value: &[u8]) -> Vec<Vec<u8>> {
        let mark = |key: &MasterKey| {
            let mut context = hmac::Context::with_key(&key.mac());
            // Names hold no zero byte, so no two purposes run into each other.
            for part in [purpose.as_bytes(), &[0], value] {
                context.update(part);
            }
            context.sign().as_ref().to_vec()
        };
        self.all().map(mark).collect()
    }

    /// Encrypts under the current key.
    pub fn seal(&self, place: Place, plain: &[u8]) -> Sealed {
        let key = self.current();
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the system gives randomness");
        let mut ciphertext = plain.to_vec();
        let sealing = key.aead();
        sealing
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                place.associated_data(),
                &mut ciphertext,
            )
            .expect("shorter than the cipher's 64 GiB");
        let mut bytes = Vec::with_capacity(HEADER_LEN + ciphertext.len());
        bytes.push(VERSION);
        bytes.extend(key.id());
        bytes.extend(nonce);
        bytes.extend(ciphertext);
        Sealed(bytes)
    }

    pub fn open(&self, place: Place, sealed: &Sealed) -> Result<Secret<Vec<u8>>, OpenError> {
        let (key_id, nonce, ciphertext) = sealed.parts().ok_or(OpenError::Damaged)?;
        let key = self.find(key_id).ok_or(OpenError::UnknownKey)?;
        let mut plain = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.aead().open_in_place(nonce, place.associated_data(), &mut plain);
        let length = opened.map_err(|_| OpenError::Damaged)?.len();
        plain.truncate(length);
        Ok(Secret::new(plain))
    }

    /// The value under the current key; `None` when it already is. This is what a rotation does to each.
    pub fn reseal(&self, place: Place, sealed: &Sealed) -> Result<Option<Sealed>, OpenError> {
        let (key_id, ..) = sealed.parts().ok_or(OpenError::Damaged)?;
        if key_id == self.current().id() {
            return Ok(None);
        }
        let plain = self.open(place, sealed)?;
        Ok(Some(self.seal(place, plain.expose())))
    }
}

impl Sealed {
    fn parts(&self) -> Option<(KeyId, [u8; NONCE_LEN], &[u8])> {
        let (header, ciphertext) = self.0.split_at_checked(HEADER_LEN)?;
        let (version, rest) = header.split_first()?;
        let (key_id, nonce) = rest.split_at(KEY_ID_LEN);
        (*version == VERSION).then_some((key_id.try_into().ok()?, nonce.try_into().ok()?, ciphertext))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(column: &'static str) -> Place {
        Place { table: "integrations", column, row: Uuid::from_u128(7) }
    }

    fn opened(keys: &MasterKeys, place: Place, sealed: &Sealed) -> Result<Vec<u8>, OpenError> {
        keys.open(place, sealed).map(|secret| secret.expose().clone())
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let keys = MasterKeys::generate();
        let sealed = keys.seal(place("secret"), b"hunter2");
        assert!(!sealed.0.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(opened(&keys, place("secret"), &sealed), Ok(b"hunter2".to_vec()));
        assert_eq!(opened(&keys, place("other"), &sealed), Err(OpenError::Damaged));
        let other_row = Place { row: Uuid::from_u128(8), ..place("secret") };
        assert_eq!(opened(&keys, other_row, &sealed), Err(OpenError::Damaged));
    }

    #[test]
    fn a_mark_is_a_keys_own_and_outlives_its_rotation() {
        let keys = MasterKeys::generate();
        let marks = keys.marks("a", b"hunter2");
        assert_eq!(marks, keys.marks("a", b"hunter2"));
        assert_ne!(marks, keys.marks("b", b"hunter2"));
        assert_ne!(marks, MasterKeys::generate().marks("a", b"hunter2"));
        let rotated = keys.with_new_key().marks("a", b"hunter2");
        assert_eq!(rotated[1..], marks[..]);
        assert_ne!(rotated[0], marks[0]);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let keys = MasterKeys::generate();
        let sealed = keys.seal(place("secret"), b"hunter2");
        for at in 0..sealed.0.len() {
            let mut changed = sealed.clone();
            changed.0[at] ^= 1;
            assert!(keys.open(place("secret"), &changed).is_err(), "byte {at}");
        }
        assert_eq!(opened(&keys, place("secret"), &Sealed(vec![1; 5])), Err(OpenError::Damaged));
    }

    #[test]
    fn equal_values_are_stored_unequal() {
        let keys = MasterKeys::generate();
        assert_ne!(keys.seal(place("secret"), b"x"), keys.seal(place("secret"), b"x"));
    }

    #[test]
    fn rotation_moves_values_to_the_new_key() {
        let old = MasterKeys::generate();
        let sealed = old.seal(place("secret"), b"hunter2");
        let both = old.clone().with_new_key();
        assert_eq!(opened(&both, place("secret"), &sealed), Ok(b"hunter2".to_vec()));
        let moved = both.reseal(place("secret"), &sealed).expect("opens").expect("was under the old key");
        assert_eq!(both.reseal(place("secret"), &moved), Ok(None));
        let new = both.only_current();
        assert_eq!(opened(&new, place("secret"), &moved), Ok(b"hunter2".to_vec()));
        assert_eq!(opened(&new, place("secret"), &sealed), Err(OpenError::UnknownKey));
    }
}
