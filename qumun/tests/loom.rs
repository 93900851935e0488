//! to come
#![cfg(loom)]
