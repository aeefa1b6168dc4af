//! Fetches, resumes and keeps model folders.
