"""INSTRUCT: conversations written by a teacher from nothing (Magpie), with gates."""
