//! Preparation and loading end to end, on small corpora made here.

mod corpus;
mod damage;
mod dirty;
mod errors;
mod interrupted;
mod loading;
mod mixes;
mod preparing;
