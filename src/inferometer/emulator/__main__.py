"""The child process of `inferometer.emulator.serve_child`; people use `inferometer emulate`."""

from inferometer.emulator.child import main

raise SystemExit(main())
