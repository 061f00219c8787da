"""Other packages' classes on this engine: existing code keeps its calls and its answers. docs/migration.md has the differences."""
