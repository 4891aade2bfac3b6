"""TensorRT 8.5 to 11 and TensorRT for RTX: building plans, checking them, running them.

Nothing outside this package imports tensorrt, pycuda or cuda-python, and nothing in it does so at module level.
`config` what to build, `library` what the installed TensorRT can do, `builder` the build itself, `launch` a build in a
process of its own, `plan` plans and their sidecars, `driver` and `cuda` the device, `engine` and `runtime` inference.
"""
