//! What says how near two texts are in meaning: whoever can run a model implements this.

/// Turns documents into vectors whose angles say how near their meanings are.
pub trait Embedder {
    /// What decides the vectors, besides the tokens: a hash of the model and of how it is used.
    fn fingerprint(&self) -> String;

    /// The vector of a document with these tokens; equally long for every document, and the same however often it is asked.
    ///
    /// # Errors
    /// Whatever keeps the model from running; it is shown to the user.
    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>>;
}
