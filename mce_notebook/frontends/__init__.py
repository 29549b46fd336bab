"""Magics, command line and server: each parses, calls one public function and shows what came back."""
