//! The kinds of this slice. Each looks up whom it is for, makes the link and mails it: a job holds none.

mod mail_invitation;
mod mail_reset;
mod mail_verification;

pub use self::{mail_invitation::MailInvitation, mail_reset::MailReset, mail_verification::MailVerification};
