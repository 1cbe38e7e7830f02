"""The experiments behind every number of the project: ``python -m results`` lists them.

- ``experiments`` and ``paper`` hold the evaluations as data, ``experiment`` says what one is; ``attacks`` and
  ``libraries`` hold attacks that only they use, and ``runs`` runs them.
- Each of these files measures something else: ``autoencoder``, ``blur``, ``corruption``, ``curves``, ``cut``,
  ``dictionary``, ``ensemble``, ``learning``, ``rounded``, ``schedule`` and ``worst_case``.
- ``tables`` prints the tables that join several evaluations, ``entries`` has the paper's numbers in them.
- ``queue`` trains the models that do not ship; ``shipping`` puts trained models into the package.
- ``inputs``, ``outputs`` and ``options`` are shared by all of them.

Each experiment writes into the folder of its name, beside these files.
"""
