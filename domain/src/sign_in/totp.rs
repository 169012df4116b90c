//! Codes of time (RFC 6238): six digits that change every thirty seconds, as every authenticator shows
//! them.

use data_encoding::BASE32_NOPAD;
use jiff::Timestamp;
use ring::hmac;
use streamspace_common::Secret;

const SECRET: usize = 20;
const STEP: i64 = 30;
const DIGITS: u32 = 6;
/// Steps before and after this one: clocks differ, and people type slowly.
const SKEW: i64 = 1;

pub(super) fn secret() -> Secret<Vec<u8>> {
    Secret::new(rand::random::<[u8; SECRET]>().to_vec())
}

/// As people type it where there is no camera.
pub(super) fn written(secret: &Secret<Vec<u8>>) -> Secret<String> {
    Secret::new(BASE32_NOPAD.encode(secret.expose()))
}

/// What an authenticator reads from a QR code.
pub(super) fn uri(secret: &Secret<Vec<u8>>, issuer: &str, account: &str) -> Secret<String> {
    let mut uri = url::Url::parse("otpauth://totp/").expect("it is one");
    uri.set_path(&format!("/{issuer}:{account}"));
    uri.query_pairs_mut()
        .append_pair("secret", written(secret).expose())
        .append_pair("issuer", issuer)
        .append_pair("algorithm", "SHA1")
        .append_pair("digits", &DIGITS.to_string())
        .append_pair("period", &STEP.to_string());
    // Authenticators show a plus as a plus.
    Secret::new(uri.as_str().replace('+', "%20"))
}

/// The step whose code this is, if it is one of now.
pub(super) fn step_of(secret: &Secret<Vec<u8>>, code: &str, now: Timestamp) -> Option<i64> {
    let code = code.trim();
    if code.len() != DIGITS as usize || !code.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let this = now.as_second() / STEP;
    // Guesses are counted, so it need not take as long whichever fits.
    (this - SKEW..=this + SKEW).find(|step| self::code(secret, *step) == code)
}

fn code(secret: &Secret<Vec<u8>>, step: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose());
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let bytes = tag.as_ref();
    let at = usize::from(bytes[bytes.len() - 1] & 0xf);
    let word = u32::from_be_bytes([bytes[at] & 0x7f, bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    format!("{:06}", word % 10_u32.pow(DIGITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, of whose eight digits the last six.
    #[test]
    fn codes_are_those_of_the_standard() {
        let secret = Secret::new(b"12345678901234567890".to_vec());
        for (second, told) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            assert_eq!(code(&secret, second / STEP), told);
        }
    }

    #[test]
    fn a_code_is_good_for_a_moment() {
        let secret = secret();
        let at = |second| Timestamp::from_second(second).expect("a time");
        let told = code(&secret, 100);
        for second in [2970, 3000, 3029, 3059] {
            assert_eq!(step_of(&secret, &told, at(second)), Some(100), "{second}");
        }
        assert_eq!(step_of(&secret, &format!(" {told} "), at(3000)), Some(100));
        for second in [2900, 3100] {
            assert_eq!(step_of(&secret, &told, at(second)), None, "{second}");
        }
        for bad in ["", "12345", "1234567", "12345a", "１２３４５６"] {
            assert_eq!(step_of(&secret, bad, at(3000)), None, "{bad}");
        }
    }

    #[test]
    fn an_authenticator_reads_it() {
        let secret = Secret::new(b"12345678901234567890".to_vec());
        assert_eq!(
            uri(&secret, "StreamSpace Acme", "ada@example.org").expose(),
            "otpauth://totp/StreamSpace%20Acme:ada@example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=StreamSpace%20Acme&algorithm=SHA1&digits=6&period=30"
        );
    }
}
