//! A document on its way from a file to the filters and the tokenizer.

/// One document as read: nothing is normalized here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its own id, or file and line where it has none.
    pub id: String,
    /// Its text.
    pub text: String,
    /// The values of the fields that the source's filters look at, in their order.
    pub fields: Vec<Option<String>>,
}
