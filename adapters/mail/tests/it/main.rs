//! Mail that leaves, against a real SMTP server; and mail that stays in a folder.

mod folder;
mod smtp;
