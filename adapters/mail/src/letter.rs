//! A message as it goes over the wire.

use lettre::{
    Address,
    message::{
        Body, Mailbox, SinglePart,
        header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue},
    },
};
use streamspace_common::config::Sender;
use streamspace_domain::mail::{Error, Message};
use uuid::Uuid;

use crate::Unusable;

/// Writes letters from one sender.
#[derive(Clone, Debug)]
pub struct Letters {
    from: Mailbox,
}

impl Letters {
    pub fn new(from: &Sender) -> Result<Self, Unusable> {
        let address = from.address.parse().map_err(|error| Unusable {
            key: "mail.from",
            message: format!("{:?} is no address: {error}", from.address),
        })?;
        Ok(Self { from: Mailbox::new(from.name.clone(), address) })
    }

    /// What a person typed can become neither a header nor a second recipient: the address is parsed
    /// as one, and the subject stays on its line.
    pub fn write(&self, message: &Message) -> Result<lettre::Message, Error> {
        let to: Address =
            message.to.parse().map_err(|error| Error::Refused(format!("no address: {error}")))?;
        let id = format!("<{}@{}>", Uuid::new_v4(), self.from.email.domain());
        lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(message.subject.replace(char::is_control, " "))
            .message_id(Some(id))
            // RFC 3834: no machine answers it.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ))
            .singlepart(
                SinglePart::builder().header(ContentType::TEXT_PLAIN).body(body(message.text.expose())),
            )
            .map_err(|error| Error::Refused(error.to_string()))
    }
}

/// RFC 5322, with its end.
const LONGEST_LINE: usize = 998;

/// As it reads, where it may: somebody copies a link out of a file, and an encoding breaks it in two.
fn body(text: &str) -> Body {
    if text.is_ascii() && text.lines().all(|line| line.len() <= LONGEST_LINE) {
        let lines: Vec<_> = text.lines().collect();
        return Body::dangerous_pre_encoded(
            lines.join("\r\n").into_bytes(),
            ContentTransferEncoding::SevenBit,
        );
    }
    Body::new(text.to_owned())
}
