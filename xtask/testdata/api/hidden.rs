pub struct Thing<T>(pub T, u8);

impl<T> Thing<T> {
    pub fn new(t: T) -> Self {}
}

pub trait Shape: Send + 'static {
    type Output<'a>: Default where Self: 'a;
    const SIDES: u32;
    fn area(&self, scale: f64) -> f64;
    fn name(&self) -> String {
        String::new()
    }
}

pub(crate) trait Secret {}

pub fn helper(text: &str) {}

#[repr(u8)]
pub enum Kind {
    A = 1,
    B(u8),
    C { x: u8 },
}
