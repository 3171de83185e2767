// layer 4: asks for the system outside platform/
#if defined(__linux__)
#endif
