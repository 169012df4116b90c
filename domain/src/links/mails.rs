//! What the mails say. Names in them were typed by somebody else, so they stand in quotes, on their line.

use std::fmt::Write;

use streamspace_common::Secret;

use super::model::Whom;
use crate::mail::Message;

/// Somebody, and the address that they are to open.
pub(super) type Link<'a> = (&'a Whom, Secret<String>);

pub(super) fn reset(to: &str, links: &[Link<'_>]) -> Message {
    let mut text = "Somebody, perhaps you, has asked for a new password.\n\n".to_owned();
    match links {
        [(whom, url)] => push(
            &mut text,
            format_args!("To choose one for \"{}\", open:\n\n{}\n", whom.tenant_name, url.expose()),
        ),
        several => {
            text.push_str("Your address is known to several organisations. Choose one for:\n");
            for (whom, url) in several {
                push(&mut text, format_args!("\n\"{}\"\n{}\n", whom.tenant_name, url.expose()));
            }
        }
    }
    text.push_str(
        "\nThis works once and for an hour, and ends what is signed in now. If it was not you, do \
         nothing:\nyour password stays as it is.\n",
    );
    Message { to: to.to_owned(), subject: "A new password for StreamSpace".to_owned(), text: text.into() }
}

pub(super) fn invitation((whom, url): &Link<'_>) -> Message {
    let text = format!(
        "You are invited to \"{}\" on StreamSpace.\n\nTo accept and choose a password, open:\n\n{}\n\n\
         This works once, within seven days. If you expect no invitation, do nothing.\n",
        whom.tenant_name,
        url.expose(),
    );
    Message { to: whom.email.clone(), subject: "An invitation to StreamSpace".to_owned(), text: text.into() }
}

pub(super) fn verification((whom, url): &Link<'_>) -> Message {
    let text = format!(
        "Your account of \"{}\" on StreamSpace has this address.\n\nTo show that it is yours, open:\n\n{}\n\n\
         This works once, within seven days. If you have no such account, do nothing.\n",
        whom.tenant_name,
        url.expose(),
    );
    Message { to: whom.email.clone(), subject: "Is this your address?".to_owned(), text: text.into() }
}

/// Without the new address, which is not theirs to know who only has the old one.
pub(super) fn moved(to: &str, tenant_name: &str) -> Message {
    let text = format!(
        "Your account of \"{tenant_name}\" on StreamSpace has another e-mail address now, and links for a \
         new\npassword go there. If you have not asked for that, tell an administrator of \"{tenant_name}\".\n",
    );
    Message { to: to.to_owned(), subject: "Your address was changed".to_owned(), text: text.into() }
}

fn push(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part).expect("memory takes any text");
}
