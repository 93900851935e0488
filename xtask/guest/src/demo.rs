//! d
use crate::Result;
/// d
///
/// # Errors
/// x
pub fn demo() -> Result<bool> {
    Ok(true)
}
