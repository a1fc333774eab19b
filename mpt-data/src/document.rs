//! Document, as a reader of files finds it.

/// Document as read, without any normalization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Own id, or file and line.
    pub id: String,
    /// Text.
    pub text: String,
    /// Values of the fields that the filters read, in their order.
    pub fields: Vec<Option<String>>,
}
