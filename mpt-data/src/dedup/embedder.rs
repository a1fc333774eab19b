//! Embedder: the interface to a model that turns texts into vectors.

/// Model that turns documents into vectors, whose cosine measures their nearness in meaning.
pub trait Embedder {
    /// Hash of the model and of its use: everything that decides the vectors, besides the tokens.
    fn fingerprint(&self) -> String;

    /// Vector of a document with these tokens. All vectors have one length, and the same tokens give the same vector.
    ///
    /// # Errors
    /// Any error of the model; it is shown to the user.
    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>>;
}
