//! CDI: model, strict parse, versions, names, directories, conflicts.
#![forbid(unsafe_code)]
