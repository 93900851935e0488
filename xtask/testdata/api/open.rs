pub static NAME: &str = "open";
pub struct Unit;
impl crate::Shape for Unit {}
