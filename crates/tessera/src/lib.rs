//! tessera: the engine as one library.
