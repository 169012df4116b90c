//! The kinds of this slice. Those with a link look up whom it is for, make it and mail it: a job holds none.

mod mail_invitation;
mod mail_moved;
mod mail_reset;
mod mail_verification;

pub use self::{
    mail_invitation::MailInvitation, mail_moved::MailMoved, mail_reset::MailReset,
    mail_verification::MailVerification,
};
