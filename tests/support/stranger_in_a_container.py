"""The same where the kernel gives no namespaces, as in many containers."""

from support.stranger import stand_in

from fedseal.client.isolation import child
from fedseal.client.isolation.confinement import Separated
from fedseal.client.isolation.linux import Namespace

if __name__ == "__main__":
    stand_in()
    vars(child)["separate"] = lambda: Separated(Namespace(0), "refused")
    child.main()
