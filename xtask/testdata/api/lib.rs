//! A crate for the test of `cargo xtask api`. It is parsed, never compiled.

mod hidden;
#[cfg(feature = "extra")]
pub mod open;
#[cfg(test)]
mod tests;

pub use hidden::{Shape, Thing as Renamed, helper};
pub use std::sync::Arc;
use hidden::Secret;

/// Two type parameters and a bound.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pair<'a, A: Default, const N: usize>
where
    A: Send,
{
    pub first: &'a [A; N],
    #[doc(hidden)]
    pub unseen: u8,
    second: Option<Box<dyn Fn(A) -> bool + 'a>>,
}

impl<'a, A: Default + Send, const N: usize> Pair<'a, A, N> {
    pub const SIZE: usize = N;
    pub const fn len(&self) -> usize {
        N
    }
    pub(crate) fn inside(&self) {}
    #[cfg(feature = "extra")]
    pub unsafe fn raw(&mut self, at: *mut u8, f: impl Fn(&str) -> (u8, u8)) -> Result<&mut A, ()> {
        Err(())
    }
    #[doc(hidden)]
    pub fn for_tests(&self) {}
}

impl From<u8> for Renamed<u8> {}
impl Secret for Renamed<u8> {}
impl<T: ?Sized> Shape for Vec<T> {}

pub type Alias<T> = Result<T, Renamed<T>>;
pub const LIMIT: u64 = 1 << 20;

#[macro_export]
macro_rules! exported {
    () => {};
}
macro_rules! private {
    () => {};
}
pub mod inline {
    pub use super::hidden::*;
    pub fn deep<T>(x: T) -> impl Iterator<Item = T> + '_ {}
}
