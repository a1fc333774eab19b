//! From raw documents to resumable batches of tokens.
