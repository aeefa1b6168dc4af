//! Folders as a user meets them: those that MLC wrote, and one broken copy for each way to be wrong.

mod broken;
mod build;
mod golden;
mod verify;
