//! One file a stage.

pub mod decode;
pub mod transform;
pub mod validate;
